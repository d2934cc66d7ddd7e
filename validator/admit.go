package validator

import (
	"context"
	"errors"
	"fmt"
)

// admit decides what a genuine token allows at this moment.
func (r *Resource) admit(ctx context.Context, g Grant) (Identity, *grantedScopes, *Refusal) {
	t := g.token
	session, refusal := r.sessionOf(ctx, g)
	if refusal != nil {
		return Identity{}, nil, refusal
	}
	if !r.cfg.ClientAllowed(t.clientID) {
		return Identity{}, nil, invalidToken(errors.New("the client is not registered any more"))
	}
	granted := t.grantedBy(session.Scopes, &r.grants)
	id := Identity{
		UserID: t.userID(), ClientID: t.clientID, SessionID: t.sessionID(),
		Scopes: granted.text, ExpiresAt: t.expires(),
	}
	if id.UserID == id.ClientID {
		// The grant client_credentials: `sub` is the client. An upstream must not
		// take it for the user of that name. RFC 9068 section 5.
		id.UserID = ""
	} else {
		id.Claims = session.Claims
	}
	// The user first: whom a scope would not help must not be asked for one.
	if !g.rule.admits(id.Claims) {
		refusal := userNotAllowed()
		refusal.Identity = id
		return Identity{}, nil, refusal
	}
	if !g.rule.allows(granted.scopes) {
		refusal := insufficientScope()
		refusal.Identity = id
		return Identity{}, nil, refusal
	}
	return id, granted, nil
}

// sessionOf returns the session of the token as it stands. What was read for
// this token before is asked about first.
func (r *Resource) sessionOf(ctx context.Context, g Grant) (Session, *Refusal) {
	t := g.token
	if session, ok := r.cfg.Sessions.Held(t.session.Load()); ok {
		return session, nil
	}
	session, err := r.readSession(ctx, g)
	switch {
	case errors.Is(err, ErrSessionEnded):
		return Session{}, invalidToken(err)
	case err != nil:
		// Never 401 (clients would drop good tokens), never a pass.
		return Session{}, unconfirmed(fmt.Errorf("read session: %w", err))
	case session.UserID != t.userID() || session.ClientID != t.clientID:
		return Session{}, invalidToken(errors.New("the session is another user's or client's"))
	}
	if session.Handle != 0 {
		t.session.Store(session.Handle)
	}
	return session, nil
}

func (r *Resource) readSession(ctx context.Context, g Grant) (Session, error) {
	if r.byToken != nil {
		return r.byToken.ReadTokenSession(ctx, g.shown, r.cfg.Resource)
	}
	return r.cfg.Sessions.ReadSession(ctx, g.token.sessionID())
}
