"""Students: listing their architectures, building, initialising and saving them."""
