package issuer

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
	"go.uber.org/zap"
)

const (
	passkeyLoginPath  = loginPath + "/" + PasskeyMethod
	passkeyScriptPath = "/oauth/passkey.js"
)

//go:embed static/passkey.js
var passkeyScript []byte

var passkeyScriptTag = func() string {
	sum := sha256.Sum256(passkeyScript)
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}()

// handlePasskeyScript answers GET /oauth/passkey.js, the only script there is.
func (s *Server) handlePasskeyScript(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache") // asked for again, so that a new version comes with its pages
	h.Set("ETag", passkeyScriptTag)
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Header.Get("If-None-Match") == passkeyScriptTag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	w.Write(passkeyScript)
}

// handlePasskeyLogin answers POST /oauth/login/passkey {request, ceremony,
// credential}.
func (s *Server) handlePasskeyLogin(w http.ResponseWriter, r *http.Request) {
	// 1. The form is ours, and so is the browser.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	req, client, ok := s.resumeSignIn(w, r, form.Get("request"))
	if !ok {
		return
	}
	address := networkOf(s.cfg.ClientAddress(r))
	if address.IsValid() {
		if ok, wait := s.password.perAddress.Reserve(address.String()); !ok {
			s.audit(r, "sign-in refused: too many failures")
			s.cfg.Tally.SignedIn(PasskeyMethod, outcomeThrottled)
			s.showThrottled(w, r, req, client, signIn{Request: form.Get("request")}, &throttledError{retryAfter: wait})
			return
		}
	}

	// 2. The signature, and whose it is.
	passkey, err := s.checkPasskey(r, form.Get("ceremony"), form.Get("credential"))
	var login Login
	cookie := newCookieValue()
	if err == nil {
		// 3. A new login, whatever the browser brought.
		login, err = s.cfg.Store.CreatePasskeyLogin(r.Context(), sha256.Sum256([]byte(cookie)), passkey, s.cfg.LoginTTL, s.origin(r))
		switch {
		case errors.Is(err, ErrReplayed):
			err = &passkeyRefusal{problem: "passkey.copied", err: fmt.Errorf("passkey %s: its counter has not moved: two devices hold it", passkey.ID)}
		case errors.Is(err, ErrNotFound):
			err = &passkeyRefusal{problem: "passkey.unknown", err: errors.New("the passkey was removed, or its user disabled, meanwhile")}
		}
	}
	var refusal *passkeyRefusal
	switch {
	case errors.As(err, &refusal):
		s.cfg.Tally.SignedIn(PasskeyMethod, outcomeFailed)
		s.audit(r, "sign-in failed", zap.String("method", PasskeyMethod), zap.String("user_id", passkey.UserID), zap.Error(refusal))
		page := signIn{Request: form.Get("request"), Problem: s.words(r).text(refusal.problem)}
		s.showSignIn(w, r, http.StatusOK, req, client, page)
	case err != nil:
		s.releaseAddress(address)
		s.cfg.Tally.SignedIn(PasskeyMethod, outcomeUnavailable)
		s.unavailablePage(w, r, "sign in", err)
	default:
		s.releaseAddress(address)
		s.adoptLogin(w, r, req, login, cookie)
		s.goOn(w, r, req)
	}
}

// passkeyRefusal: this attempt signs nobody in.
type passkeyRefusal struct {
	problem string // key of what the user is told
	err     error  // for the log
}

func (r *passkeyRefusal) Error() string { return r.err.Error() }

// checkPasskey returns the passkey that the answer is from, with its counter and
// its backup state as the authenticator says. The error is a *passkeyRefusal, or
// what the store said.
func (s *Server) checkPasskey(r *http.Request, sealed, answer string) (Passkey, error) {
	c, err := s.openCeremony(r, passkeyGet, sealed)
	if err != nil {
		return Passkey{}, &passkeyRefusal{"passkey.late", err}
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes([]byte(answer))
	if err != nil {
		return Passkey{}, &passkeyRefusal{"passkey.refused", explained(err)}
	}
	passkey, err := s.cfg.Store.FindPasskey(r.Context(), parsed.RawID)
	if errors.Is(err, ErrNotFound) {
		return Passkey{}, &passkeyRefusal{"passkey.unknown", errors.New("nobody has this passkey")}
	}
	if err != nil {
		return Passkey{}, err
	}
	credential, err := s.passkeys.ValidateDiscoverableLogin(func(_, _ []byte) (webauthn.User, error) {
		return newPasskeyUser(passkey.UserID, "", passkey), nil
	}, c.Session, parsed)
	if err != nil {
		return passkey, &passkeyRefusal{"passkey.refused", explained(err)}
	}
	// Only now, so that nobody but the holder of a passkey leaves a row.
	if err := s.useChallenge(r, c); errors.Is(err, ErrReplayed) {
		return passkey, &passkeyRefusal{"passkey.late", errors.New("the challenge was answered before")}
	} else if err != nil {
		return passkey, err
	}
	// The counter that was signed; the store compares it with the one it has.
	passkey.SignCount, passkey.BackedUp = int64(parsed.Response.AuthenticatorData.Counter), credential.Flags.BackupState
	return passkey, nil
}
