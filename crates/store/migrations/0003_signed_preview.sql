-- Links to a port of a sandbox that need no other credential, until they expire. Only the token's hash is kept.
CREATE TABLE signed_previews (
    token_hash TEXT PRIMARY KEY,
    sandbox_id TEXT NOT NULL,
    port BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX signed_previews_by_expiry ON signed_previews (expires_at);
