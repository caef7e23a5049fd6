-- One row. Each column after the first is the version at which that part last changed, so that a reader loads only what it must.
-- What is added to users and tokens, of which there are many, is found by the rows' own `changed`: the first number of such a
-- part is the version at which something else happened to it, the second that of the last addition.
CREATE TABLE state (
    version BIGINT NOT NULL,
    users BIGINT NOT NULL,
    new_users BIGINT NOT NULL,
    groups BIGINT NOT NULL,
    projects BIGINT NOT NULL,
    members BIGINT NOT NULL,
    tokens BIGINT NOT NULL,
    new_tokens BIGINT NOT NULL
);
INSERT INTO state VALUES (1, 1, 1, 1, 1, 1, 1, 1);

CREATE TABLE users (
    id IDENTITY,
    name TEXT NOT NULL UNIQUE,
    password TEXT,
    administrator BIGINT NOT NULL,
    blocked BIGINT NOT NULL,
    changed BIGINT NOT NULL
);
CREATE INDEX users_changed ON users (changed);

CREATE TABLE groups (
    id IDENTITY,
    path TEXT NOT NULL UNIQUE
);

CREATE TABLE projects (
    id IDENTITY,
    path TEXT NOT NULL UNIQUE,
    visibility TEXT NOT NULL CHECK (visibility IN ('public', 'private'))
);

CREATE TABLE project_members (
    project_id BIGINT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    PRIMARY KEY (project_id, user_id)
);
CREATE INDEX project_members_user ON project_members (user_id);

CREATE TABLE group_members (
    group_id BIGINT NOT NULL REFERENCES groups (id) ON DELETE CASCADE,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role TEXT NOT NULL,
    PRIMARY KEY (group_id, user_id)
);
CREATE INDEX group_members_user ON group_members (user_id);

-- `folded` is the pattern in lower case: two spellings of one pattern are one pattern.
CREATE TABLE rules (
    id IDENTITY,
    project_id BIGINT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    pattern TEXT NOT NULL,
    folded TEXT NOT NULL,
    push TEXT,
    remove TEXT,
    CHECK (push IS NOT NULL OR remove IS NOT NULL),
    UNIQUE (project_id, folded)
);

CREATE TABLE tag_rules (
    id IDENTITY,
    project_id BIGINT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    pattern TEXT NOT NULL,
    push TEXT,
    remove TEXT,
    CHECK ((push IS NULL) = (remove IS NULL)),
    UNIQUE (project_id, pattern)
);

CREATE TABLE tokens (
    id IDENTITY,
    digest TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('personal', 'deploy', 'job')),
    user_id BIGINT REFERENCES users (id) ON DELETE CASCADE,
    project_id BIGINT REFERENCES projects (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    login TEXT,
    reads BIGINT NOT NULL,
    writes BIGINT NOT NULL,
    api BIGINT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,
    changed BIGINT NOT NULL,
    CHECK (user_id IS NOT NULL OR kind = 'deploy'),
    CHECK (project_id IS NOT NULL OR kind = 'personal')
);
CREATE INDEX tokens_user ON tokens (user_id);
CREATE INDEX tokens_project ON tokens (project_id);
CREATE INDEX tokens_login ON tokens (login);
CREATE INDEX tokens_expires ON tokens (expires);
CREATE INDEX tokens_changed ON tokens (changed);

-- What happened stays when what it happened to is deleted: no references.
CREATE TABLE audit (
    id IDENTITY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    address TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    project_id BIGINT,
    rule_id BIGINT
);
CREATE INDEX audit_at ON audit (at);
CREATE INDEX audit_project ON audit (project_id, id);
