"""What runs the app on a person's machine; never deployed."""
