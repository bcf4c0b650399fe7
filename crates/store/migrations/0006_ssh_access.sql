-- Who may open SSH connections to a sandbox: the one token it has, by its hash, until it expires.
CREATE TABLE ssh_access (
    sandbox_id TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    token_hash TEXT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE UNIQUE INDEX ssh_access_by_token ON ssh_access (token_hash);
CREATE INDEX ssh_access_by_expiry ON ssh_access (expires_at);
