-- The traces that workflows belong to, as W3C's traceparent: of a workflow its beginning, of a step what it asked last.
-- Null where nothing is traced; code of the release before leaves them as they are.
ALTER TABLE workflow ADD COLUMN traceparent text;
ALTER TABLE step ADD COLUMN traceparent text;
