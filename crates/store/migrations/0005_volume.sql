-- Volumes, and which sandboxes mount them where.
CREATE TABLE volumes (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    size_gib BIGINT NOT NULL,
    error_reason TEXT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE UNIQUE INDEX volumes_by_name ON volumes (organization_id, name) WHERE state <> 'deleted';
ALTER TABLE sandboxes ADD COLUMN volumes TEXT NOT NULL DEFAULT '[]';
