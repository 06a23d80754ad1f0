"""Real servers for the tests, each a context manager that ends what it started."""
