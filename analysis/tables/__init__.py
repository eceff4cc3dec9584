"""Tables: what they hold and the forms they take."""
