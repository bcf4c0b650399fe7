-- What a pause, a time to live, a fork, a link and a change under way need; and what was used, for a bill.
ALTER TABLE sandboxes ADD COLUMN auto_pause BIGINT NOT NULL DEFAULT 0;
ALTER TABLE sandboxes ADD COLUMN auto_destroy_at BIGINT;
ALTER TABLE sandboxes ADD COLUMN parent_id TEXT;
ALTER TABLE sandboxes ADD COLUMN linked_id TEXT;
ALTER TABLE sandboxes ADD COLUMN job TEXT;
CREATE INDEX sandboxes_by_parent ON sandboxes (parent_id);
CREATE INDEX sandboxes_by_link ON sandboxes (linked_id);
ALTER TABLE snapshots ADD COLUMN source_sandbox_id TEXT;
CREATE TABLE usage_periods (
    id TEXT PRIMARY KEY,
    sandbox_id TEXT NOT NULL,
    organization_id TEXT NOT NULL,
    region TEXT NOT NULL,
    region_type TEXT NOT NULL,
    sandbox_class TEXT NOT NULL,
    cpu BIGINT NOT NULL,
    gpu BIGINT NOT NULL,
    gpu_type TEXT,
    memory_gib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    start_at BIGINT NOT NULL,
    end_at BIGINT
);
CREATE INDEX usage_periods_by_sandbox ON usage_periods (sandbox_id, start_at);
CREATE INDEX usage_periods_by_organization ON usage_periods (organization_id, start_at);
CREATE UNIQUE INDEX usage_periods_open ON usage_periods (sandbox_id) WHERE end_at IS NULL;
