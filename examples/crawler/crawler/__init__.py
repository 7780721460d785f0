"""A crawler: fetches the pages of a site, and tries again where the site is busy."""
