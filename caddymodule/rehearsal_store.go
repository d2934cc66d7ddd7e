package caddymodule

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// rehearsalUser is who signs in at a rehearsal.
const rehearsalUser = "user"

// rehearsalStore is what an authorization server keeps while a connection is
// rehearsed: in memory, for one client after the other. Steps that no rehearsal
// takes are those of the nil Store, and would panic.
type rehearsalStore struct {
	issuer.Store
	method string // the login method by which everybody is signed in

	// documents stand in for those that clients publish. One that is not here is
	// not asked for elsewhere.
	documents     map[string][]byte
	registrations map[string]issuer.ClientRegistration
	codes         map[issuer.Digest]issuer.AuthorizationCode
	sessions      map[string]*issuer.Session
	approvals     map[string]issuer.Digest
	pushed        map[issuer.Digest]string
}

func newRehearsalStore(method string) *rehearsalStore {
	return &rehearsalStore{
		method: method, documents: make(map[string][]byte), registrations: make(map[string]issuer.ClientRegistration),
		codes: make(map[issuer.Digest]issuer.AuthorizationCode), sessions: make(map[string]*issuer.Session), approvals: make(map[string]issuer.Digest),
		pushed: make(map[issuer.Digest]string),
	}
}

// FindLogin implements issuer.LoginStore: whoever has a cookie is signed in.
func (s *rehearsalStore) FindLogin(context.Context, issuer.Digest) (issuer.Login, error) {
	return issuer.Login{ID: uuid.NewString(), UserID: rehearsalUser, Name: "user@example.com", Method: s.method, AuthTime: time.Now(), ExpiresAt: time.Now().Add(time.Hour)}, nil
}

// FindDocument implements issuer.RegistrationStore. A document that nobody has
// counts as switched off, so that it is never fetched.
func (s *rehearsalStore) FindDocument(_ context.Context, clientID string) (issuer.ClientDocument, error) {
	body, ok := s.documents[clientID]
	return issuer.ClientDocument{ClientID: clientID, Body: body, Fresh: time.Hour, Disabled: !ok}, nil
}

// RegisterClient implements issuer.RegistrationStore.
func (s *rehearsalStore) RegisterClient(_ context.Context, r issuer.ClientRegistration, _ time.Duration, _ issuer.Origin) error {
	s.registrations[r.ClientID] = r
	return nil
}

// FindRegistration implements issuer.RegistrationStore.
func (s *rehearsalStore) FindRegistration(_ context.Context, clientID string) (issuer.ClientRegistration, error) {
	r, ok := s.registrations[clientID]
	if !ok {
		return r, issuer.ErrNotFound
	}
	return r, nil
}

// ApproveClient implements issuer.RegistrationStore.
func (s *rehearsalStore) ApproveClient(_ context.Context, clientID, _ string, revision issuer.Digest) error {
	s.approvals[clientID] = revision
	return nil
}

// ClientApproval implements issuer.RegistrationStore.
func (s *rehearsalStore) ClientApproval(_ context.Context, clientID, _ string) (issuer.Digest, error) {
	revision, ok := s.approvals[clientID]
	if !ok {
		return revision, issuer.ErrNotFound
	}
	return revision, nil
}

// CreateAuthorizationCode implements issuer.CodeStore.
func (s *rehearsalStore) CreateAuthorizationCode(_ context.Context, code issuer.AuthorizationCode, _ time.Duration, _ issuer.Origin) error {
	s.codes[code.Digest] = code
	return nil
}

// FindAuthorizationCode implements issuer.CodeStore.
func (s *rehearsalStore) FindAuthorizationCode(_ context.Context, digest issuer.Digest) (issuer.AuthorizationCode, error) {
	code, ok := s.codes[digest]
	if !ok {
		return code, issuer.ErrNotFound
	}
	return code, nil
}

// CountFailedRedemption implements issuer.CodeStore.
func (s *rehearsalStore) CountFailedRedemption(context.Context, issuer.Digest) error { return nil }

// RedeemAuthorizationCode implements issuer.CodeStore.
func (s *rehearsalStore) RedeemAuthorizationCode(_ context.Context, digest issuer.Digest, lifetime issuer.SessionLifetime, _ issuer.Origin) (issuer.Session, error) {
	code := s.codes[digest]
	delete(s.codes, digest)
	return s.open(code.UserID, code.ClientID, code.Resource, code.Scopes, lifetime), nil
}

// OpenClientSession implements issuer.SessionStore.
func (s *rehearsalStore) OpenClientSession(_ context.Context, clientID, resource string, scopes oauth.ScopeSet, lifetime issuer.SessionLifetime, _ issuer.Origin) (issuer.Session, error) {
	return s.open(clientID, clientID, resource, scopes, lifetime), nil
}

func (s *rehearsalStore) open(user, client, resource string, scopes oauth.ScopeSet, lifetime issuer.SessionLifetime) issuer.Session {
	session := issuer.Session{
		ID: uuid.NewString(), UserID: user, ClientID: client, Resource: resource, Scopes: scopes, GrantedScopes: scopes,
		CreatedAt: time.Now(), AuthTime: time.Now(), ExpiresAt: time.Now().Add(lifetime.TTL), Remaining: lifetime.TTL, LoginMethod: s.method, Profile: []byte("{}"),
	}
	s.sessions[session.ID] = &session
	return session
}

// PushRequest implements issuer.PushStore.
func (s *rehearsalStore) PushRequest(_ context.Context, digest issuer.Digest, _, parameters string, _ time.Duration) error {
	s.pushed[digest] = parameters
	return nil
}

// UsePushedRequest implements issuer.PushStore.
func (s *rehearsalStore) UsePushedRequest(_ context.Context, digest issuer.Digest, _ string) (string, error) {
	parameters, ok := s.pushed[digest]
	if !ok {
		return "", issuer.ErrNotFound
	}
	return parameters, nil
}

// FindSession implements issuer.SessionStore.
func (s *rehearsalStore) FindSession(_ context.Context, sessionID, clientID string) (issuer.Session, error) {
	session, ok := s.sessions[sessionID]
	if !ok || session.ClientID != clientID {
		return issuer.Session{}, issuer.ErrNotFound
	}
	return *session, nil
}

// FindAdoptedRefreshToken implements issuer.SessionStore: there is none.
func (s *rehearsalStore) FindAdoptedRefreshToken(context.Context, issuer.Digest, string, time.Duration, issuer.Origin) (issuer.Session, error) {
	return issuer.Session{}, issuer.ErrNotFound
}

// RotateRefreshToken implements issuer.SessionStore. All is done within the
// grace, if there is one.
func (s *rehearsalStore) RotateRefreshToken(_ context.Context, r issuer.Rotation, _ issuer.Origin) (issuer.Rotated, error) {
	session, ok := s.sessions[r.SessionID]
	switch {
	case !ok:
		return issuer.Rotated{}, issuer.ErrNotFound
	case r.Counter == session.Counter:
		session.Counter++
		return issuer.Rotated{Session: *session}, nil
	case r.Counter == session.Counter-1 && r.Grace > 0:
		return issuer.Rotated{Session: *session, Repeated: true}, nil
	}
	delete(s.sessions, r.SessionID)
	return issuer.Rotated{}, issuer.ErrReplayed
}

// UserSessions implements issuer.SessionStore: each client comes to a user who
// has connected none.
func (s *rehearsalStore) UserSessions(context.Context, string) ([]issuer.Session, error) {
	return nil, nil
}

// ReadSession implements validator.SessionReader.
func (s *rehearsalStore) ReadSession(_ context.Context, sessionID string) (validator.Session, error) {
	session, ok := s.sessions[sessionID]
	if !ok {
		return validator.Session{}, validator.ErrSessionEnded
	}
	return validator.Session{UserID: session.UserID, ClientID: session.ClientID, Scopes: session.Scopes}, nil
}

// Held implements validator.SessionReader: nothing is kept.
func (s *rehearsalStore) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }

var (
	_ issuer.Store            = (*rehearsalStore)(nil)
	_ validator.SessionReader = (*rehearsalStore)(nil)
)
