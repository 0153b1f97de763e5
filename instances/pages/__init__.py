"""The pages of the panel as the server renders them. Each can be read without its script."""
