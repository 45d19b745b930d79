"""Which loss, for this data? What is measured around runs, before them and over many of them."""
