package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// rotateSQL is one UPDATE of one row. The clock is read after the row's lock was
// waited for (clock_timestamp(), not now()): with the statement's own time the
// losers of an honest race would find rotated_at in their future. A repeated
// counter moves nothing but tokens_expire_at. rt_rotation tells the two apart
// afterwards, and rt_previous whether the counter was above the row's.
//
// The row is the one of source, and the arguments are those that it names: $1
// and so on, or columns of it.
func rotateSQL(source string, a rotationArguments) string {
	return strings.NewReplacer("{source}", source, "{id}", a.id, "{client}", a.client, "{counter}", a.counter, "{grace}", a.grace,
		"{idle}", a.idle, "{ttl}", a.ttl, "{address}", a.address, "{request}", a.request, "{agent}", a.agent, "{key}", a.key, "{resource}", a.resource).Replace(`
	rotated AS (
		UPDATE {s}.gpt_sessions SET
			rt_previous = CASE WHEN {counter} >= rt_counter THEN rt_counter ELSE rt_previous END,
			rt_counter = CASE WHEN {counter} >= rt_counter THEN {counter} + 1 ELSE rt_counter END,
			rt_rotation = CASE WHEN {counter} >= rt_counter THEN pg_current_xact_id() ELSE rt_rotation END,
			rotated_at = CASE WHEN {counter} >= rt_counter THEN clock_timestamp() ELSE rotated_at END,
			last_active = CASE WHEN {counter} >= rt_counter THEN clock_timestamp() ELSE last_active END,
			idle_expires_at = CASE WHEN {counter} < rt_counter THEN idle_expires_at
				WHEN {idle} > 0 THEN clock_timestamp() + make_interval(secs => {idle}) END,
			client_address = CASE WHEN {counter} >= rt_counter THEN {address} ELSE client_address END,
			client_agent = CASE WHEN {counter} >= rt_counter THEN {agent} ELSE client_agent END,
			resource = coalesce(resource, {resource}),
			tokens_expire_at = greatest(tokens_expire_at, clock_timestamp() + make_interval(secs => {ttl}))
		{source}
		WHERE id = {id} AND client_id = {client} AND ` + live + ` AND (dpop_jkt IS NULL OR dpop_jkt = {key})
			AND ({counter} >= rt_counter
				OR ({counter} = rt_counter - 1 AND rotated_at <= clock_timestamp() AND clock_timestamp() < rotated_at + make_interval(secs => {grace})))
		RETURNING gpt_sessions.*, coalesce(rt_rotation = pg_current_xact_id(), false) AS moved,
			{counter} AS presented, {address} AS address, {request} AS request),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.counter_ahead', user_id, client_id, id, address, request, jsonb_build_object('row', rt_previous, 'presented', presented)
		FROM rotated WHERE moved AND rt_previous < presented)
	SELECT ` + sessionColumns + `, moved FROM rotated`)
}

// rotationArguments are expressions of SQL.
type rotationArguments struct{ id, client, counter, grace, idle, ttl, address, request, agent, key, resource string }

var rotateOneSQL = "WITH" + rotateSQL("", rotationArguments{"$1", "$2", "$3::bigint", "$4::float8", "$5::float8", "$6::float8", "$7::text", "$8::text", "$9::text", "$10::text", "$11::text"})

// rotateManySQL moves the rows that nobody holds: a row that somebody else is at
// must not keep the others waiting, and the order of the rows does not matter
// since it waits for none. A row is found again by its place; one that moved
// meanwhile is not, and goes alone.
var rotateManySQL = `
	WITH free AS MATERIALIZED (
		SELECT a.*, s.ctid AS a_place
		FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::float8[], $5::float8[], $6::float8[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[])
			AS a (a_id, a_client, a_counter, a_grace, a_idle, a_ttl, a_address, a_request, a_agent, a_key, a_resource)
		JOIN {s}.gpt_sessions s ON s.id = a_id
		FOR NO KEY UPDATE OF s SKIP LOCKED),` +
	rotateSQL("FROM free", rotationArguments{"a_id AND ctid = a_place", "a_client", "a_counter", "a_grace", "a_idle", "a_ttl", "a_address", "a_request", "a_agent", "a_key", "a_resource"})

const replayedSQL = `
	WITH revoked AS (
		UPDATE {s}.gpt_sessions SET revoked_at = clock_timestamp(), revoke_reason = 'refresh_token_replayed'
		WHERE id = $1 AND client_id = $2 AND ` + live + ` AND rt_counter > $3::bigint AND (dpop_jkt IS NULL OR dpop_jkt = $6::text)
		RETURNING id, user_id, client_id, rt_counter),
	event AS (
		INSERT INTO {s}.gpt_oauth_events (event_type, user_id, client_id, session_id, ip_address, request_id, metadata)
		SELECT 'gpt.oauth.replay_detected', user_id, client_id, id, $4::text, $5::text, jsonb_build_object('what', 'refresh_token', 'row', rt_counter, 'presented', $3::bigint) FROM revoked)
	SELECT true FROM revoked`

// maxRotations in one trip: enough to make the commit cheap, few enough that
// nobody waits long for the others.
const maxRotations = 256

// rotation is a refresh that wants to go along with others.
type rotation struct {
	issuer.Rotation
	id     uuid.UUID
	origin issuer.Origin
}

// errAlone: the trip left this one out, and nothing has changed for it.
var errAlone = errors.New("go alone")

// RotateRefreshToken is described at issuer.SessionStore. Concurrent ones share
// a statement and its commit as long as nothing is in the way of any; what is
// out of the ordinary (a token that does not hold, a row that somebody else
// holds, a second refresh of one session) is decided alone. ADR 18.
func (s *Store) RotateRefreshToken(ctx context.Context, r issuer.Rotation, origin issuer.Origin) (rotated issuer.Rotated, err error) {
	const step = "rotate refresh token"
	id, ok := parseID(r.SessionID)
	if !ok || r.Counter < 0 {
		return rotated, wrap(step, issuer.ErrNotFound)
	}
	if err := ctx.Err(); err != nil {
		return rotated, wrap(step, err)
	}
	// One deadline for all of it, in the queue too.
	ctx, cancel := s.db.deadline(ctx)
	defer cancel()
	own := rotation{r, id, origin}
	if rotated, err = s.rotations.join(ctx, own); errors.Is(err, errAlone) {
		return s.rotateOne(ctx, own)
	}
	return rotated, err
}

// rotateMany moves what it can in one statement.
func (s *Store) rotateMany(ctx context.Context, batch []*passenger[rotation, issuer.Rotated]) {
	byID := make(map[string]*passenger[rotation, issuer.Rotated], len(batch))
	var a rotationColumns
	for _, p := range batch {
		p.err = errAlone
		if byID[p.ask.SessionID] == nil { // one statement changes a row once
			byID[p.ask.SessionID] = p
			a.add(&p.ask)
		}
	}
	var moved []issuer.Rotated
	err := s.db.write(ctx, "rotate refresh tokens", func(ctx context.Context, conn *pgxpool.Conn) error {
		moved = moved[:0]
		rows, err := conn.Query(ctx, s.db.sql(rotateManySQL), a.ids, a.clients, a.counters, a.graces, a.idles, a.ttls, a.addresses, a.requests, a.agents, a.keys, a.resources)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scanRotated(rows)
			if err != nil {
				return err
			}
			moved = append(moved, r)
		}
		return rows.Err()
	})
	switch {
	case rolledBack(err): // for the sake of one perhaps
	case err != nil:
		for _, p := range batch {
			p.err = err
		}
	default:
		for _, r := range moved {
			p := byID[r.Session.ID]
			p.answer, p.err = r, nil
		}
	}
}

// rotationColumns are the arguments of rotateManySQL.
type rotationColumns struct {
	ids                         pgtype.FlatArray[pgtype.UUID] // encoded without reflection
	clients                     pgtype.FlatArray[string]
	counters                    pgtype.FlatArray[int64]
	graces, idles, ttls         pgtype.FlatArray[float64]
	addresses, requests, agents pgtype.FlatArray[*string]
	keys, resources             pgtype.FlatArray[*string]
}

func (c *rotationColumns) add(r *rotation) {
	c.ids = append(c.ids, pgtype.UUID{Bytes: r.id, Valid: true})
	c.clients = append(c.clients, r.ClientID)
	c.counters = append(c.counters, r.Counter)
	c.graces = append(c.graces, r.Grace.Seconds())
	c.idles = append(c.idles, r.IdleTTL.Seconds())
	c.ttls = append(c.ttls, r.AccessTokenTTL.Seconds())
	c.addresses = append(c.addresses, address(r.origin))
	c.requests = append(c.requests, requestID(r.origin))
	c.agents = append(c.agents, orNull(r.origin.Agent))
	c.keys = append(c.keys, orNull(r.DPoPKey))
	c.resources = append(c.resources, orNull(r.Resource))
}

// rotateOne waits for the row, and finds out why a token does not hold.
func (s *Store) rotateOne(ctx context.Context, r rotation) (rotated issuer.Rotated, err error) {
	err = s.db.write(ctx, "rotate refresh token", func(ctx context.Context, conn *pgxpool.Conn) error {
		rotated, err = scanRotated(conn.QueryRow(ctx, s.db.sql(rotateOneSQL), r.id, r.ClientID, r.Counter, r.Grace.Seconds(), r.IdleTTL.Seconds(),
			r.AccessTokenTTL.Seconds(), address(r.origin), requestID(r.origin), orNull(r.origin.Agent), orNull(r.DPoPKey), orNull(r.Resource)))
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		var replayed bool
		if err := conn.QueryRow(ctx, s.db.sql(replayedSQL), r.id, r.ClientID, r.Counter, address(r.origin), requestID(r.origin), orNull(r.DPoPKey)).Scan(&replayed); err != nil {
			return err
		}
		return issuer.ErrReplayed
	})
	if err != nil {
		return issuer.Rotated{}, err
	}
	return rotated, nil
}

func scanRotated(row pgx.Row) (issuer.Rotated, error) {
	var moved bool
	session, err := scanSession(row, &moved)
	return issuer.Rotated{Session: session, Repeated: !moved}, err
}

// FindAdoptedRefreshToken is described at issuer.SessionStore. A token that the
// replaced system rotated leads to its session along rotated_to; within grace
// its direct successor's session answers, as our own previous counter does.
func (s *Store) FindAdoptedRefreshToken(ctx context.Context, digest issuer.Digest, clientID string, grace time.Duration, origin issuer.Origin) (session issuer.Session, err error) {
	err = s.db.write(ctx, "find adopted refresh token", func(ctx context.Context, conn *pgxpool.Conn) error {
		var exists bool
		if err := conn.QueryRow(ctx, `SELECT to_regclass($1) IS NOT NULL`, s.db.sql("{s}.gpt_refresh_tokens")).Scan(&exists); err != nil {
			return err
		}
		if !exists {
			return issuer.ErrNotFound
		}
		var id string
		var usable bool
		err := conn.QueryRow(ctx, s.db.sql(`
			WITH RECURSIVE chain AS (
				SELECT id, rotated_to, 0 AS steps FROM {s}.gpt_refresh_tokens WHERE token_hash = $1
				UNION
				SELECT t.id, t.rotated_to, chain.steps + 1 FROM chain JOIN {s}.gpt_refresh_tokens t ON t.id = chain.rotated_to WHERE chain.steps < 10000)
			SELECT s.id::text,
				(chain.steps = 0 AND t.revoked_at IS NULL)
				OR (chain.steps = 1 AND clock_timestamp() < t.revoked_at + make_interval(secs => $3::float8))
			FROM chain JOIN {s}.gpt_sessions s ON s.refresh_token_id = chain.id
			CROSS JOIN (SELECT revoked_at, expires_at FROM {s}.gpt_refresh_tokens WHERE token_hash = $1) t
			WHERE s.client_id = $2 AND t.expires_at > clock_timestamp() AND s.`+`revoked_at IS NULL AND s.expires_at > clock_timestamp()
				AND (s.idle_expires_at IS NULL OR s.idle_expires_at > clock_timestamp())
			ORDER BY chain.steps, s.created_at DESC LIMIT 1`), hex.EncodeToString(digest[:]), clientID, grace.Seconds()).Scan(&id, &usable)
		if err != nil {
			return err
		}
		if !usable {
			var replayed bool
			// Whatever the counter stands at: -1 is below it.
			if err := conn.QueryRow(ctx, s.db.sql(replayedSQL), id, clientID, int64(-1), address(origin), requestID(origin), nil).Scan(&replayed); err != nil {
				return err
			}
			return issuer.ErrReplayed
		}
		session, err = scanSession(conn.QueryRow(ctx, s.db.sql(`SELECT `+sessionColumns+` FROM {s}.gpt_sessions WHERE id = $1 AND `+live), id))
		return err
	})
	if err != nil {
		return issuer.Session{}, err
	}
	return session, nil
}
