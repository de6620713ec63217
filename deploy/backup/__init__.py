"""A backup of a whole installation to one moment, and what makes an installation of it again. docs/backup.md."""
