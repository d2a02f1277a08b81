"""supervisord, which keeps the portal's programs running: its one client, and its configuration."""
