"""Label Studio behind the portal's login: no account and no password of its own."""
