"""The lab's documentation: folders of Markdown or built sites, behind the login, searchable."""
