package issuer

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// appsOf returns one page of what the user has connected, and where the next one
// begins; the zero value: there is none.
func (s *Server) appsOf(ctx context.Context, userID string, after AppPosition) (apps []ConnectedApp, next AppPosition, err error) {
	apps, err = s.cfg.Store.ConnectedApps(ctx, userID, after, appsPerPage+1)
	if err != nil || len(apps) <= appsPerPage {
		return apps, AppPosition{}, err
	}
	last := apps[appsPerPage-1]
	return apps[:appsPerPage], AppPosition{last.CreatedAt, last.ID}, nil
}

// String is the position as it stands in an address: microseconds, as Postgres
// counts them, and the id.
func (p AppPosition) String() string {
	return strconv.FormatInt(p.CreatedAt.UnixMicro(), 10) + "." + p.SessionID
}

// readAppPosition reads what String wrote; an empty text is the beginning.
func readAppPosition(text string) (p AppPosition, ok bool) {
	if text == "" {
		return p, true
	}
	at, id, found := strings.Cut(text, ".")
	micros, err := strconv.ParseInt(at, 10, 64)
	if !found || err != nil || len(id) > 36 || micros < 0 || micros > maxMicros {
		return p, false
	}
	return AppPosition{time.UnixMicro(micros).UTC(), id}, true
}

// maxMicros is the year 9999, the last that JSON can write.
const maxMicros = 253402300799 * 1e6

// clientAsItWas returns what was known of a client last, also when it is gone by
// now: to say its name.
func (s *Server) clientAsItWas(ctx context.Context, clientID string) *Client {
	client, err := s.cfg.Clients.Client(withoutFetch(ctx), clientID)
	if err != nil {
		return &Client{ID: clientID, Registration: registrationOf(clientID)}
	}
	return client
}

// registrationOf tells from a client_id how a client that is gone was registered.
func registrationOf(clientID string) RegistrationKind {
	switch {
	case IsMetadataDocument(clientID):
		return RegisteredByDocument
	case strings.HasPrefix(clientID, DynamicClientPrefix):
		return RegisteredByItself
	}
	return RegisteredByOwner
}

// whoVouches returns the host whose document describes the client, or that
// nobody does. Neither: the owner of the server does.
func whoVouches(client *Client) (host string, unverified bool) {
	switch client.Registration {
	case RegisteredByDocument:
		return hostOf(client.ID), false
	case RegisteredByItself:
		return "", true
	}
	return "", false
}
