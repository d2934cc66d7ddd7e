package issuer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
)

type pageClients map[string]*Client

func (c pageClients) Client(_ context.Context, id string) (*Client, error) {
	if client, ok := c[id]; ok {
		return client, nil
	}
	return nil, ErrNotFound
}

// pageStore is the part of a store that the pages use. The rest is nil.
type pageStore struct {
	Store
	now func() time.Time

	mu       sync.Mutex
	down     error // what every method answers, when set
	skew     time.Duration
	users    []User
	logins   map[Digest]Login
	sessions []Session
	codes    []AuthorizationCode
}

func (s *pageStore) locked(do func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down
	}
	return do()
}

func (s *pageStore) FindUserByEmail(_ context.Context, email string) (user User, err error) {
	err = s.locked(func() error {
		i := slices.IndexFunc(s.users, func(u User) bool { return strings.EqualFold(u.Email, email) })
		if i < 0 {
			return ErrNotFound
		}
		user = s.users[i]
		return nil
	})
	return user, err
}

func (s *pageStore) CreateLogin(_ context.Context, digest Digest, userID, method string, ttl time.Duration, _ Origin) (login Login, err error) {
	err = s.locked(func() error {
		i := slices.IndexFunc(s.users, func(u User) bool { return u.ID == userID })
		sum := sha256.Sum256(digest[:])
		at := s.now().Add(s.skew)
		login = Login{ID: hex.EncodeToString(sum[:16]), UserID: userID, Name: s.users[i].Email, Method: method, AuthTime: at, ExpiresAt: at.Add(ttl)}
		s.logins[digest] = login
		return nil
	})
	return login, err
}

func (s *pageStore) FindLogin(_ context.Context, digest Digest) (login Login, err error) {
	err = s.locked(func() error {
		var ok bool
		if login, ok = s.logins[digest]; !ok {
			return ErrNotFound
		}
		return nil
	})
	return login, err
}

func (s *pageStore) EndLogin(_ context.Context, digest Digest, _ Origin) error {
	return s.locked(func() error { delete(s.logins, digest); return nil })
}

func (s *pageStore) UserSessions(_ context.Context, userID string) (sessions []Session, err error) {
	err = s.locked(func() error {
		for _, session := range s.sessions {
			if session.UserID == userID {
				sessions = append(sessions, session)
			}
		}
		return nil
	})
	return sessions, err
}

func (s *pageStore) EndUserSession(_ context.Context, sessionID, userID string, _ Origin) error {
	return s.locked(func() error {
		if !strings.HasPrefix(sessionID, "s") { // as a database takes what is no uuid
			return errors.New("invalid input syntax for type uuid")
		}
		n := len(s.sessions)
		s.sessions = slices.DeleteFunc(s.sessions, func(session Session) bool { return session.ID == sessionID && session.UserID == userID })
		if len(s.sessions) == n {
			return ErrNotFound
		}
		return nil
	})
}

func (s *pageStore) CreateAuthorizationCode(_ context.Context, code AuthorizationCode, _ time.Duration, _ Origin) error {
	return s.locked(func() error {
		if !slices.ContainsFunc(s.codes, func(c AuthorizationCode) bool { return c.RequestID == code.RequestID }) {
			s.codes = append(s.codes, code)
		}
		return nil
	})
}
