package postgres

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// Store keeps the authorization server's state. Each method is a protocol step
// and one transaction; see issuer.Store.
type Store struct {
	db              *DB
	proofs          sharedTrips[usedProof, struct{}]
	clients         sharedTrips[string, bool]
	operatorClients sharedTrips[string, OperatorClient]
	codes           sharedTrips[issuer.Digest, issuer.AuthorizationCode]
	sessions        sharedTrips[uuid.UUID, issuer.Session]
	rotations       sharedTrips[rotation, issuer.Rotated]
}

var (
	_ issuer.Store    = (*Store)(nil)
	_ issuer.KeyStore = (*Store)(nil)
)

// NewStore returns the store of db, whose schema must be migrated.
func NewStore(db *DB) *Store {
	s := &Store{db: db}
	s.proofs = sharedTrips[usedProof, struct{}]{what: "DPoP proofs", atOnce: 2, limit: db.tripLimit(), run: s.useProofs}
	s.clients = sharedTrips[string, bool]{what: "client reads", atOnce: 1, limit: db.tripLimit(), run: s.findEnabledClients}
	s.operatorClients = sharedTrips[string, OperatorClient]{what: "client reads", atOnce: 1, limit: db.tripLimit(), run: s.findOperatorClients}
	s.codes = sharedTrips[issuer.Digest, issuer.AuthorizationCode]{what: "code reads", atOnce: 1, limit: db.tripLimit(), run: s.findCodes}
	s.sessions = sharedTrips[uuid.UUID, issuer.Session]{what: "session reads", atOnce: 1, limit: db.tripLimit(), run: s.findSessions}
	s.rotations = sharedTrips[rotation, issuer.Rotated]{what: "refreshes", atOnce: 1, most: maxRotations, run: s.rotateMany}
	return s
}

// live is the condition of a session that may act. clock_timestamp(), not
// now(): a statement may have waited for the row's lock.
const live = `revoked_at IS NULL AND expires_at > clock_timestamp() AND (idle_expires_at IS NULL OR idle_expires_at > clock_timestamp())`

// own is the condition of a session that its user sees and may end, and not one
// in which a service calls on: that one ends with the session it was made from.
const own = `NOT EXISTS (SELECT FROM {s}.gpt_delegated_sessions d WHERE d.session_id = id)`

// direct is the condition of a session that the user allowed: others take no
// place of session_limit, and are no consent.
const direct = own + ` AND asserted_by IS NULL`

// sessionColumns in the order of scanSession. The user is looked up only for
// sessions that may say who that is.
const sessionColumns = `id::text, user_id, client_id, coalesce(resource, ''), coalesce(redirect_uri, ''), scopes, granted_scopes, rt_counter,
	auth_time, created_at, last_active, expires_at, coalesce(dpop_jkt, ''), coalesce(login_method, ''), coalesce(asserted_by, ''),
	CASE WHEN scopes && ARRAY['openid', 'profile', 'email'] THEN (SELECT ` + userProfile + ` FROM {s}.gpt_users u WHERE u.id = user_id) END,
	extract(epoch FROM expires_at - clock_timestamp())::float8`

// userProfile is issuer.Session's Profile. The address that a user signs in with
// is theirs, whatever the profile says.
const userProfile = `jsonb_strip_nulls(u.profile || CASE WHEN u.email IS NULL THEN '{}' ELSE jsonb_build_object('email', u.email) END
	|| jsonb_build_object('updated_at', floor(extract(epoch FROM u.updated_at))::bigint))`

func scanSession(row pgx.Row, more ...any) (s issuer.Session, err error) {
	var scopes, granted []string
	var remaining float64
	err = row.Scan(append([]any{&s.ID, &s.UserID, &s.ClientID, &s.Resource, &s.RedirectURI, &scopes, &granted, &s.Counter,
		&s.AuthTime, &s.CreatedAt, &s.LastActive, &s.ExpiresAt, &s.DPoPKey, &s.LoginMethod, &s.AssertedBy, &s.Profile, &remaining}, more...)...)
	s.Scopes, s.GrantedScopes = oauth.NewScopeSet(scopes...), oauth.NewScopeSet(granted...)
	s.Remaining = time.Duration(remaining * float64(time.Second))
	return s, err
}

// address and requestID are NULL where the origin does not know them.
func address(o issuer.Origin) *string {
	if !o.Address.IsValid() {
		return nil
	}
	text := o.Address.String()
	return &text
}

func requestID(o issuer.Origin) *string { return orNull(o.RequestID) }

func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// parseID reads a canonical uuid; anything else cannot be in the database, and
// is not sent there.
func parseID(text string) (uuid.UUID, bool) {
	if len(text) != 36 {
		return uuid.Nil, false
	}
	id, err := uuid.Parse(text)
	return id, err == nil
}

// isText reports whether a row can hold the text at all. What comes with a request may
// be other bytes, for which the server fails the whole statement, and with it
// everybody who shares the trip.
func isText(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// scopeArray is never NULL.
func scopeArray(s oauth.ScopeSet) []string {
	if s == nil {
		return []string{}
	}
	return s
}
