package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

const (
	userColumns = `id, coalesce(email, ''), coalesce(password_hash, ''), disabled_at IS NOT NULL, created_at`
	// byEmail uses the unique index: only ASCII folds.
	byEmail = `lower(email COLLATE "C") = lower($1::text COLLATE "C")`
	// byName also takes the id of a user who has no address here.
	byName = `(` + byEmail + ` OR id = $1 AND email IS NULL)`
)

func scanUser(row pgx.Row) (u issuer.User, err error) {
	err = row.Scan(&u.ID, &u.Email, &u.PasswordHash, &u.Disabled, &u.CreatedAt)
	return u, err
}

// FindUserByEmail is described at issuer.UserStore.
func (s *Store) FindUserByEmail(ctx context.Context, email string) (u issuer.User, err error) {
	err = s.db.read(ctx, "find user", func(ctx context.Context, conn *pgxpool.Conn) error {
		u, err = scanUser(conn.QueryRow(ctx, s.db.sql(`SELECT `+userColumns+` FROM {s}.gpt_users WHERE `+byEmail), email))
		return err
	})
	return u, err
}

// CreateUser is described at issuer.UserStore.
func (s *Store) CreateUser(ctx context.Context, email, passwordHash string, origin issuer.Origin) (u issuer.User, err error) {
	err = s.db.write(ctx, "create user", func(ctx context.Context, conn *pgxpool.Conn) error {
		u, err = scanUser(conn.QueryRow(ctx, s.db.sql(`
			WITH made AS (INSERT INTO {s}.gpt_users (email, password_hash) VALUES ($1, $2) RETURNING *),
			event AS (INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id) SELECT 'gpt.oauth.user_created', id, $3::text, $4::text FROM made)
			SELECT `+userColumns+` FROM made`), email, passwordHash, address(origin), requestID(origin)))
		if hasCode(err, "23505") {
			return issuer.ErrExists
		}
		return err
	})
	return u, err
}

// SetPassword is described at issuer.UserStore.
func (s *Store) SetPassword(ctx context.Context, email, passwordHash string, origin issuer.Origin) error {
	const endLogins = `ended AS (DELETE FROM {s}.gpt_logins l USING changed WHERE l.user_id = changed.id),`
	return s.changeUser(ctx, "set password", userChange{
		which: byEmail, set: `password_hash = $4`, also: endLogins, event: "gpt.oauth.password_changed",
	}, origin, email, passwordHash)
}

// endResets: a link that sets a password must not come back to life with the user.
const endResets = `ended AS (DELETE FROM {s}.gpt_password_resets r USING changed WHERE r.user_id = changed.id),`

// DisableUser is described at issuer.UserStore. A trigger ends logins and
// sessions, as it does when disabled_at is set by hand.
func (s *Store) DisableUser(ctx context.Context, name string, origin issuer.Origin) error {
	return s.changeUser(ctx, "disable user", userChange{
		which: byName, set: `disabled_at = coalesce(disabled_at, clock_timestamp())`, also: endResets, event: "gpt.oauth.user_disabled",
	}, origin, name)
}

// EnableUser is described at issuer.UserStore.
func (s *Store) EnableUser(ctx context.Context, name string, origin issuer.Origin) error {
	return s.changeUser(ctx, "enable user", userChange{which: byName, set: `disabled_at = NULL`, also: endResets, event: "gpt.oauth.user_enabled"}, origin, name)
}

// userChange is SQL of a change to one user.
type userChange struct {
	which string // condition on $1, the name of the user
	set   string // arguments of the change begin at $4
	also  string // a further step of the statement, on the rows of `changed`
	event string // its type
}

// changeUser changes the user of this name, with an event. ErrNotFound.
func (s *Store) changeUser(ctx context.Context, step string, change userChange, origin issuer.Origin, name string, more ...any) error {
	return s.db.write(ctx, step, func(ctx context.Context, conn *pgxpool.Conn) error {
		var id string
		return conn.QueryRow(ctx, s.db.sql(`
			WITH changed AS (UPDATE {s}.gpt_users SET `+change.set+`, updated_at = clock_timestamp() WHERE `+change.which+` RETURNING id), `+change.also+`
			event AS (INSERT INTO {s}.gpt_oauth_events (event_type, user_id, ip_address, request_id) SELECT '`+change.event+`', id, $2::text, $3::text FROM changed)
			SELECT id FROM changed`), append([]any{name, address(origin), requestID(origin)}, more...)...).Scan(&id)
	})
}

// UserRecord is a user as an operator sees it.
type UserRecord struct {
	ID, Email, Name string // Email and Name may be empty
	Password        bool   // they have one here
	CreatedAt       time.Time
	DisabledAt      *time.Time
}

// ListUsers returns users ordered by id, those after the given one, at most
// limit.
func (s *Store) ListUsers(ctx context.Context, after string, limit int) ([]UserRecord, error) {
	return list(ctx, s.db, "list users", scanUserRecord, `
		SELECT id, coalesce(email, ''), coalesce(name, ''), password_hash IS NOT NULL, created_at, disabled_at
		FROM {s}.gpt_users WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
}

func scanUserRecord(row pgx.Row) (u UserRecord, err error) {
	err = row.Scan(&u.ID, &u.Email, &u.Name, &u.Password, &u.CreatedAt, &u.DisabledAt)
	return u, err
}
