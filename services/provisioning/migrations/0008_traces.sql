-- The trace that a job belongs to, as W3C's traceparent: the handling of the message that is answered in the end. Null
-- where nothing is traced; code of the release before leaves it as it is.
ALTER TABLE job ADD COLUMN traceparent text;
