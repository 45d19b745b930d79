"""What a trained model needs to be used. Of other libraries, numpy and Pillow are enough for it."""
