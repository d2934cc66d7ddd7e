package issuer

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	eventsPath = "/oauth/events"
	// maxEvent bounds an event, in bytes: it holds a whole account.
	maxEvent = 256 << 10
)

var errEventNotSigned = &oauth.Error{Status: http.StatusForbidden, Code: oauth.CodeAccessDenied, Description: "The event is not signed as it must be, or not of now. The log says why."}

// eventPath is where the source sends its events to.
func eventPath(source *EventSource) string {
	if source.Name == "" {
		return eventsPath
	}
	return eventsPath + "/" + source.Name
}

// handleEvent answers POST /oauth/events, with which an identity provider tells
// that an account is no more. Whoever is unknown here, and whatever is of no
// interest, is answered as what was done: the sender has no use for the
// difference, and repeats what is refused.
func (s *Server) handleEvent(source *EventSource) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// 1. The very bytes that were signed.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEvent))
		if err != nil {
			s.writeError(w, r, unreadBody(err))
			return
		}
		// 2. Who says it, and when.
		signed, err := source.verify(r.Header, body, s.cfg.Now())
		if err != nil {
			s.audit(r, "event refused", zap.String("source", source.label()), zap.Error(err))
			s.writeError(w, r, errEventNotSigned)
			return
		}
		// 3. What it says.
		end, err := source.read(body)
		if err != nil {
			s.audit(r, "event not understood", zap.String("source", source.label()), zap.Error(err))
			s.writeError(w, r, oauth.InvalidRequest("The event is not understood. The log says why."))
			return
		}
		// 4. The end of the account.
		if end != nil {
			err = s.endAccount(r, source, signed, end)
		}
		if err != nil {
			s.writeError(w, r, err)
			return
		}
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
	}
}

// endAccount ends all that the user has here, and keeps them out.
func (s *Server) endAccount(r *http.Request, source *EventSource, signed signedEvent, end *accountEnd) error {
	userID, err := s.cfg.Store.EndAccount(r.Context(), AccountEnd{
		EventID: signed.id, RememberFor: signed.rememberFor, Authority: source.authority, Subject: end.Subject, Deleted: end.Deleted, Source: source.label(),
	}, s.origin(r))
	about := []zap.Field{zap.String("source", source.label()), zap.String("type", end.Type), zap.String("subject", end.Subject)}
	switch {
	case err == nil:
		s.audit(r, "account ended elsewhere", append(about, zap.String("user_id", userID))...)
	case errors.Is(err, ErrNotFound):
		s.audit(r, "account ended elsewhere, of a user who is not known here", about...)
	case errors.Is(err, ErrReplayed): // done; a sender that missed our answer asks again
		s.audit(r, "event came again, and was not followed again", about...)
	default:
		return fmt.Errorf("end account: %w", err)
	}
	return nil
}
