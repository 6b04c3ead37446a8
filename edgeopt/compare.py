"""Release against release."""
