"""What one operation is, per kind of service; data sets with exact answers."""
