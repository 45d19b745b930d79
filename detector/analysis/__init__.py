"""What COCO's numbers do not say: calibration, kinds of errors, intervals; numpy in, numbers
out."""
