-- One text for SQLite and PostgreSQL: text, 64-bit integers, times as milliseconds since the epoch, booleans as 0 and 1.
CREATE TABLE users (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    email TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE TABLE organizations (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    created_by TEXT NOT NULL,
    personal BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);
CREATE TABLE members (
    organization_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    role TEXT NOT NULL,
    PRIMARY KEY (organization_id, user_id)
);
CREATE TABLE api_keys (
    organization_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL UNIQUE,
    prefix TEXT NOT NULL,
    suffix TEXT NOT NULL,
    permissions TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at BIGINT,
    PRIMARY KEY (organization_id, user_id, name)
);
CREATE TABLE sandboxes (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    desired_state TEXT NOT NULL,
    snapshot TEXT NOT NULL,
    image TEXT NOT NULL,
    run_as TEXT,
    shown_user TEXT NOT NULL,
    entrypoint TEXT NOT NULL,
    env TEXT NOT NULL,
    labels TEXT NOT NULL,
    public BIGINT NOT NULL,
    network_block_all BIGINT NOT NULL,
    target TEXT NOT NULL,
    cpu BIGINT NOT NULL,
    memory_gib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    auto_stop BIGINT NOT NULL,
    auto_archive BIGINT NOT NULL,
    auto_delete BIGINT NOT NULL,
    error_reason TEXT,
    recoverable BIGINT NOT NULL,
    auth_token TEXT NOT NULL,
    daemon_version TEXT,
    runner_id TEXT,
    force_stop BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    last_activity_at BIGINT NOT NULL,
    UNIQUE (organization_id, name)
);
CREATE INDEX sandboxes_by_state ON sandboxes (state, desired_state);
CREATE TABLE snapshots (
    id TEXT PRIMARY KEY,
    organization_id TEXT NOT NULL,
    name TEXT NOT NULL,
    general BIGINT NOT NULL,
    image_name TEXT NOT NULL,
    state TEXT NOT NULL,
    size_bytes BIGINT,
    entrypoint TEXT,
    cpu BIGINT NOT NULL,
    memory_gib BIGINT NOT NULL,
    disk_gib BIGINT NOT NULL,
    error_reason TEXT,
    image TEXT,
    image_user TEXT,
    last_used_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (organization_id, name)
);
