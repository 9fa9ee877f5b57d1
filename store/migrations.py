"""The schema's diary: named, ordered steps, each applied once. A step, once released, is never edited.

Primary keys only: DuckDB's secondary and unique indexes have lost rows after upserts and replays. Fact tables
are filled by `applying.py` alone, so they can be built again from the journal; `sessions` and
`sign_in_links` are not facts and start empty after a rebuild.
"""

from __future__ import annotations

from collections.abc import Callable

import duckdb

from store.clock import to_column, utc
from store.errors import HeedError

FACT_TABLES = (
    "people",
    "prompts",
    "completions",
    "tasks",
    "judgements",
    "ratings",
    "policies",
    "promotions",
    "rounds",
    "adjudications",
    "gold",
    "guidelines",
    "guideline_acceptances",
    "outside_labels",
    "judge_verdicts",
    "erasures",
    "person_acts",
    "canaries",
)
Step = Callable[[duckdb.DuckDBPyConnection], None]


def create_journal_position(db: duckdb.DuckDBPyConnection) -> None:
    # One row: every event up to this one is in the tables.
    db.execute("CREATE TABLE journal_position (applied_seq BIGINT NOT NULL)")
    db.execute("INSERT INTO journal_position VALUES (0)")


def create_people(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE people (
            person_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            name VARCHAR NOT NULL, name_key VARCHAR NOT NULL, role VARCHAR NOT NULL, active BOOLEAN NOT NULL,
            password_hash VARCHAR NOT NULL, token_sha256 VARCHAR NOT NULL)""")


def create_prompts(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE prompts (
            prompt_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            messages_json VARCHAR NOT NULL, content_sha256 VARCHAR NOT NULL, source VARCHAR NOT NULL,
            tags_json VARCHAR NOT NULL)""")


def create_completions(db: duckdb.DuckDBPyConnection) -> None:
    # Training re-uses exactly the tokens that were sampled; re-tokenising can differ. As text they are one
    # value to bind: as a list, 60 ids cost more than the rest of the row.
    db.execute("""
        CREATE TABLE completions (
            completion_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            messages_json VARCHAR NOT NULL, text VARCHAR NOT NULL, version VARCHAR NOT NULL,
            temperature DOUBLE NOT NULL, top_p DOUBLE NOT NULL, max_tokens INTEGER NOT NULL,
            seed BIGINT NOT NULL, token_ids_json VARCHAR NOT NULL, logprob_sum DOUBLE NOT NULL,
            finish_reason VARCHAR NOT NULL, num_prompt_tokens INTEGER NOT NULL,
            prompt_id VARCHAR, conversation_id VARCHAR, person_id VARCHAR)""")


def create_tasks(db: duckdb.DuckDBPyConnection) -> None:
    # num_accepted counts the judgements that stand, skips left out: handing out a task then counts nothing.
    db.execute("""
        CREATE TABLE tasks (
            task_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            kind VARCHAR NOT NULL, prompt_id VARCHAR NOT NULL, first_id VARCHAR NOT NULL, second_id VARCHAR,
            version VARCHAR NOT NULL, wanted INTEGER NOT NULL,
            num_accepted INTEGER NOT NULL, retired BOOLEAN NOT NULL)""")


def create_judgements(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE judgements (
            judgement_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            task_id VARCHAR NOT NULL, person_id VARCHAR NOT NULL, choice VARCHAR NOT NULL,
            chosen_id VARCHAR, rejected_id VARCHAR, left_id VARCHAR, strength INTEGER NOT NULL,
            reasons_json VARCHAR NOT NULL, comment VARCHAR NOT NULL, correction VARCHAR, active_ms BIGINT,
            undone BOOLEAN NOT NULL)""")


def create_ratings(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE ratings (
            rating_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            completion_id VARCHAR NOT NULL, person_id VARCHAR NOT NULL, value INTEGER NOT NULL,
            reasons_json VARCHAR NOT NULL, comment VARCHAR NOT NULL, correction VARCHAR)""")


def create_policies(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE policies (
            version VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            state VARCHAR NOT NULL, parent VARCHAR, round_id VARCHAR, weights_sha256 VARCHAR,
            reason VARCHAR NOT NULL)""")
    db.execute("""
        CREATE TABLE promotions (
            seq BIGINT PRIMARY KEY, created_at TIMESTAMP NOT NULL, version VARCHAR NOT NULL,
            previous VARCHAR NOT NULL, kind VARCHAR NOT NULL, actor VARCHAR NOT NULL,
            reason VARCHAR NOT NULL)""")


def create_rounds(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE rounds (
            round_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            state VARCHAR NOT NULL, "trigger" VARCHAR NOT NULL, parent VARCHAR NOT NULL, version VARCHAR,
            num_pairs INTEGER NOT NULL, num_ratings INTEGER NOT NULL, reason VARCHAR NOT NULL,
            snapshot_seq BIGINT NOT NULL, finished_at TIMESTAMP)""")


def create_leases_and_sessions(db: duckdb.DuckDBPyConnection) -> None:
    # Not facts: losing one costs an annotator a click or a person a sign-in, so they skip the journal.
    db.execute("""
        CREATE TABLE leases (
            lease_id VARCHAR PRIMARY KEY, task_id VARCHAR NOT NULL, person_id VARCHAR NOT NULL,
            left_id VARCHAR, expires_at TIMESTAMP NOT NULL)""")
    for table in ("sessions", "sign_in_links"):
        db.execute(f"""
            CREATE TABLE {table} (
                token_sha256 VARCHAR PRIMARY KEY, person_id VARCHAR NOT NULL,
                expires_at TIMESTAMP NOT NULL)""")


def remember_purpose_of_tasks(db: duckdb.DuckDBPyConnection) -> None:
    # Lower priority is handed out first; a repeat is one person's earlier task with the sides swapped.
    db.execute("ALTER TABLE tasks ADD COLUMN purpose VARCHAR DEFAULT 'label'")
    db.execute("ALTER TABLE tasks ADD COLUMN priority DOUBLE DEFAULT 0")
    db.execute("ALTER TABLE tasks ADD COLUMN repeat_of VARCHAR")
    db.execute("ALTER TABLE tasks ADD COLUMN only_for VARCHAR")


def remember_unsafe_flags(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("ALTER TABLE judgements ADD COLUMN unsafe_json VARCHAR DEFAULT '[]'")


def create_adjudications_and_gold(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE adjudications (
            adjudication_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            task_id VARCHAR NOT NULL, person_id VARCHAR NOT NULL, choice VARCHAR NOT NULL, chosen_id VARCHAR,
            rejected_id VARCHAR, strength INTEGER NOT NULL, comment VARCHAR NOT NULL)""")
    # At most one row a task, kept so by the events: a key would break on delete and insert in one go.
    db.execute("""
        CREATE TABLE gold (
            task_id VARCHAR NOT NULL, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            choice VARCHAR NOT NULL, chosen_id VARCHAR, source VARCHAR NOT NULL)""")


def create_guidelines(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("""
        CREATE TABLE guidelines (
            version INTEGER PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            text VARCHAR NOT NULL, actor VARCHAR NOT NULL)""")
    db.execute("""
        CREATE TABLE guideline_acceptances (
            seq BIGINT PRIMARY KEY, created_at TIMESTAMP NOT NULL, person_id VARCHAR NOT NULL,
            version INTEGER NOT NULL)""")


def create_outside_labels(db: duckdb.DuckDBPyConnection) -> None:
    # Labels nobody gave here. Apart from judgements, so that no query can take one for a person's.
    db.execute("""
        CREATE TABLE outside_labels (
            label_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            content_sha256 VARCHAR NOT NULL, kind VARCHAR NOT NULL, source VARCHAR NOT NULL,
            annotator VARCHAR NOT NULL, messages_json VARCHAR NOT NULL, chosen VARCHAR NOT NULL,
            rejected VARCHAR, desirable BOOLEAN, strength INTEGER NOT NULL, weight DOUBLE NOT NULL,
            task_id VARCHAR, split VARCHAR, extra_json VARCHAR NOT NULL)""")


def remember_who_is_left_out(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("ALTER TABLE people ADD COLUMN trained_on BOOLEAN DEFAULT true")
    db.execute("ALTER TABLE rounds ADD COLUMN without_json VARCHAR DEFAULT '[]'")
    db.execute("""
        CREATE TABLE erasures (
            seq BIGINT PRIMARY KEY, created_at TIMESTAMP NOT NULL, person_id VARCHAR NOT NULL,
            mode VARCHAR NOT NULL, actor VARCHAR NOT NULL, num_events BIGINT NOT NULL,
            versions_json VARCHAR NOT NULL)""")


def remember_which_judgements_count(db: duckdb.DuckDBPyConnection) -> None:
    # A judgement of a task that was slipped in as gold takes none of the places the task wanted.
    db.execute("ALTER TABLE judgements ADD COLUMN counts BOOLEAN DEFAULT true")


def create_judge_verdicts(db: duckdb.DuckDBPyConnection) -> None:
    # Ties and unreadable replies are no labels, and yet they were paid for and must not be asked again.
    db.execute("""
        CREATE TABLE judge_verdicts (
            seq BIGINT PRIMARY KEY, created_at TIMESTAMP NOT NULL, task_id VARCHAR NOT NULL,
            source VARCHAR NOT NULL, content_sha256 VARCHAR NOT NULL, verdict VARCHAR NOT NULL,
            replies_json VARCHAR NOT NULL, num_calls INTEGER NOT NULL, problem VARCHAR NOT NULL)""")


def remember_what_was_done_to_people(db: duckdb.DuckDBPyConnection) -> None:
    # Earlier acts are in the journal alone: the tables are emptied, so that the start that applies this step
    # fills them again from its first event. Otherwise a backup, built anew, would hold rows these do not.
    db.execute("""
        CREATE TABLE person_acts (
            seq BIGINT PRIMARY KEY, created_at TIMESTAMP NOT NULL, person_id VARCHAR NOT NULL,
            act VARCHAR NOT NULL, actor VARCHAR NOT NULL, reason VARCHAR NOT NULL)""")
    if db.execute("SELECT applied_seq FROM journal_position WHERE applied_seq > 0").fetchone() is None:
        return  # nothing has been filled in
    by_events = "SELECT table_name FROM duckdb_columns() WHERE column_name = 'seq' AND NOT internal"
    for (table,) in db.execute(by_events).fetchall():
        db.execute(f"DELETE FROM {table}")
    db.execute("UPDATE journal_position SET applied_seq = 0")


def keep_leases_in_memory(db: duckdb.DuckDBPyConnection) -> None:
    # They live in store/queue.py now, with a note of them beside the tables (store/lease_log.py).
    db.execute("DROP TABLE leases")


def remember_how_answers_ended(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("ALTER TABLE completions ADD COLUMN stop_json VARCHAR DEFAULT '[]'")
    db.execute("ALTER TABLE completions ADD COLUMN num_left_out INTEGER DEFAULT 0")


def create_canaries(db: duckdb.DuckDBPyConnection) -> None:
    # One row a canary, running while it has no outcome; numbers_json is what it had come to at its end.
    db.execute("""
        CREATE TABLE canaries (
            canary_id VARCHAR PRIMARY KEY, seq BIGINT NOT NULL, created_at TIMESTAMP NOT NULL,
            version VARCHAR NOT NULL, live VARCHAR NOT NULL, share DOUBLE NOT NULL, actor VARCHAR NOT NULL,
            reason VARCHAR NOT NULL, ended_at TIMESTAMP, outcome VARCHAR, end_reason VARCHAR NOT NULL,
            ended_by VARCHAR NOT NULL, numbers_json VARCHAR NOT NULL)""")


STEPS: tuple[Step, ...] = (
    create_journal_position,
    create_people,
    create_prompts,
    create_completions,
    create_tasks,
    create_judgements,
    create_ratings,
    create_policies,
    create_rounds,
    create_leases_and_sessions,
    remember_purpose_of_tasks,
    remember_unsafe_flags,
    create_adjudications_and_gold,
    create_guidelines,
    create_outside_labels,
    remember_who_is_left_out,
    remember_which_judgements_count,
    create_judge_verdicts,
    remember_what_was_done_to_people,
    keep_leases_in_memory,
    remember_how_answers_ended,
    create_canaries,
)


def migrate(db: duckdb.DuckDBPyConnection, steps: tuple[Step, ...] = STEPS) -> list[str]:
    """Apply the steps this file has not seen, each in its own transaction; returns their names."""
    db.execute(
        "CREATE TABLE IF NOT EXISTS migrations (name VARCHAR PRIMARY KEY, applied_at TIMESTAMP NOT NULL)"
    )
    seen = {name for (name,) in db.execute("SELECT name FROM migrations").fetchall()}
    unknown = seen - {step.__name__ for step in steps}
    if unknown:
        raise HeedError(
            f"the tables were written by a newer Heed (step {min(unknown)!r}); start that version"
        )
    missing = [step for step in steps if step.__name__ not in seen]
    for step in missing:
        _apply(db, step)
    return [step.__name__ for step in missing]


def _apply(db: duckdb.DuckDBPyConnection, step: Step) -> None:
    db.begin()
    try:
        step(db)
        db.execute("INSERT INTO migrations VALUES (?, ?)", [step.__name__, to_column(utc())])
    except BaseException:
        db.rollback()
        raise
    db.commit()
