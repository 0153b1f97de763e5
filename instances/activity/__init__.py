"""The activity: one timeline of what people, operations and synchronizations did, read from the existing records."""
