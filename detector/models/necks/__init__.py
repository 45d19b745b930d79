"""What makes a pyramid of feature maps."""
