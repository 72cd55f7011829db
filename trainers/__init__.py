"""Training and fitting: what needs labels, gradients, or whole recordings of normal footage."""
