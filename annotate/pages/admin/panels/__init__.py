"""What the admin page shows, as HTML made from records. Pure functions; every value is escaped."""
