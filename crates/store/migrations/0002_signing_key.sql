-- The key that signs URLs of a sandbox's files; made when it is first asked for.
ALTER TABLE sandboxes ADD COLUMN signing_key TEXT;
