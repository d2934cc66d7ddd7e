package authserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	// DefaultMaxStaleness is how old an answer about a token may be.
	DefaultMaxStaleness = 5 * time.Second
	// maxAnswers are kept, of the tokens seen last.
	maxAnswers = 20_000
)

// answer is what the authorization server said about a token.
type answer struct {
	session *validator.Session // nil: the token is not active
	asked   time.Time          // before it was
}

// Introspects reports whether there is a client to introspect by.
func (s *Server) Introspects() bool { return s.cfg.ClientID != "" }

// ReadSession implements validator.SessionReader. Only the token itself can be asked
// about: see ReadTokenSession.
func (s *Server) ReadSession(context.Context, string) (validator.Session, error) {
	return validator.Session{}, errors.New("sessions are asked about by their tokens")
}

// Held implements validator.SessionReader: how old an answer is, is looked at each
// time.
func (s *Server) Held(uint64) (validator.Session, bool) { return validator.Session{}, false }

// ReadTokenSession implements validator.TokenSessionReader by introspection (RFC
// 7662). An answer counts for Config.MaxStaleness from before the question was
// sent, so that no request is admitted later than that after the session was
// revoked. While the server cannot be asked, answers that are younger still count.
// In the second half of that time the next question is asked beside the requests,
// so that the sessions in use do not wait for it.
func (s *Server) ReadTokenSession(ctx context.Context, token, resource string) (validator.Session, error) {
	if !s.Introspects() {
		return validator.Session{}, errors.New("there is no client to introspect by")
	}
	if known, ok := s.answers.Get(token); ok {
		switch age := s.cfg.Now().Sub(known.asked); {
		case age < s.cfg.MaxStaleness/2:
			return known.result()
		case age < s.cfg.MaxStaleness:
			s.ask(ctx, token, resource)
			return known.result()
		}
	}
	select {
	case result := <-s.ask(ctx, token, resource):
		if result.Err != nil {
			return validator.Session{}, fmt.Errorf("%w: %w", ErrUnavailable, result.Err)
		}
		return result.Val.(answer).result()
	case <-ctx.Done():
		return validator.Session{}, ctx.Err()
	}
}

func (a answer) result() (validator.Session, error) {
	if a.session == nil {
		return validator.Session{}, validator.ErrSessionEnded
	}
	return *a.session, nil
}

// ask sends one question, however many wait for its answer. It takes less time than
// an answer counts: who joins late must not get an old one.
func (s *Server) ask(ctx context.Context, token, resource string) <-chan singleflight.Result {
	token = strings.Clone(token) // a piece of the header block of a request
	ctx = context.WithoutCancel(ctx)
	return s.questions.DoChan(resource+" "+token, func() (any, error) {
		if known, ok := s.answers.Get(token); ok && s.cfg.Now().Sub(known.asked) < s.cfg.MaxStaleness/2 { // since it was looked up
			return known, nil
		}
		m, err := s.readMetadata(ctx)
		if err != nil {
			return nil, err
		}
		a := answer{asked: s.cfg.Now()}
		if a.session, err = s.introspect(ctx, m.IntrospectionEndpoint, token, resource); err != nil {
			return nil, err
		}
		s.answers.Add(token, a)
		return a, nil
	})
}

// introspection are the members of RFC 7662 section 2.2 that matter here.
type introspection struct {
	Active   bool   `json:"active"`
	Issuer   string `json:"iss"`
	Audience string `json:"aud"`
	Subject  string `json:"sub"`
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
	Expires  int64  `json:"exp"`
}

// introspect returns the session of the token as it stands; nil: it is not active.
func (s *Server) introspect(ctx context.Context, endpoint, token, resource string) (*validator.Session, error) {
	if err := checkURL(endpoint); err != nil {
		return nil, fmt.Errorf("the metadata of %s: introspection_endpoint %q: %w", s.cfg.Issuer, endpoint, err)
	}
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}.Encode()
	var said introspection
	err := s.do(ctx, min(s.cfg.Timeout, s.cfg.MaxStaleness), func(ctx context.Context) (*http.Request, error) {
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form))
		if err != nil {
			return nil, err
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(url.QueryEscape(s.cfg.ClientID), url.QueryEscape(s.cfg.ClientSecret)) // RFC 6749 section 2.3.1
		return r, nil
	}, &said)
	switch {
	case err != nil:
		return nil, fmt.Errorf("introspect: %w", err)
	case !said.Active:
		return nil, nil
	case said.Issuer != s.cfg.Issuer:
		return nil, fmt.Errorf("introspect: the answer is about a token of %q", said.Issuer)
	case said.Audience != resource:
		return nil, fmt.Errorf("introspect: the answer is about a token for %q, not %q", said.Audience, resource)
	}
	scopes, err := oauth.ParseScope(said.Scope)
	if err != nil {
		return nil, fmt.Errorf("introspect: %w", err)
	}
	return &validator.Session{UserID: said.Subject, ClientID: said.ClientID, Scopes: scopes, Until: time.Unix(said.Expires, 0)}, nil
}
