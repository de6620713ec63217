-- What an operation found and changed: its undo brings that back, once. Null where undoing means deleting.
ALTER TABLE operation ADD COLUMN before jsonb;
