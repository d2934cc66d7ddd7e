package issuer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// SecondFactorMode says whether users of `login password` have a second factor.
type SecondFactorMode string

const (
	SecondFactorOff      SecondFactorMode = ""
	SecondFactorOptional SecondFactorMode = "optional" // users may set one up
	SecondFactorRequired SecondFactorMode = "required" // nobody signs in by password alone
)

const (
	secondFactorPath = "/oauth/second_factor"

	// otpMethod is what gpt_logins calls a sign-in with password and code.
	otpMethod = "password+otp"

	// otpPeriod is how long a code is shown, in seconds. RFC 6238 section 5.2. One
	// period to either side counts too: clocks differ, and people type slowly.
	otpPeriod = 30

	// recoveryCodes is how many a user has; each holds 80 random bits, in base32.
	recoveryCodes, recoveryCodeLength = 10, 16
)

// Attempts at a code that one user has, from wherever they come: who tries codes knows
// the password already. The first stops a run of guesses, the second patience: three
// codes in a million count, so that a guesser has one chance in thirty a year. Those
// of one address are bounded besides. Recovery codes are not counted: nobody guesses
// 80 bits, and whoever is kept from the codes by a guesser gets in with one.
var (
	otpLately = AttemptBound{Limit: 10, Window: 15 * time.Minute}
	otpDaily  = AttemptBound{Limit: 30, Window: 24 * time.Hour}
)

var base32Text = base32.StdEncoding.WithPadding(base32.NoPadding)

// pendingLogin is a password that was right, of a user who has yet to show the
// second factor. It travels sealed in the form: it is no login, it takes no row,
// and it holds only for the authorization request, and with it the browser, that
// it was made for. SECURITY-CASES A-33.
type pendingLogin struct {
	RequestID string
	Email     string
	UserID    string
	Password  Digest // of the stored hash: a changed password ends it
	StartedAt time.Time
}

const (
	pendingPurpose = "second factor"

	// pendingLifetime is how long somebody may look for their device.
	pendingLifetime = 5 * time.Minute
)

func (s *Server) sealJSON(purpose string, value any) (string, error) {
	plain, err := json.Marshal(value)
	if err != nil {
		return "", fmt.Errorf("seal %s: %w", purpose, err)
	}
	return base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, []byte(purpose))), nil
}

func (s *Server) openJSON(purpose, sealed string, value any) bool {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return false
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, []byte(purpose))
	return err == nil && json.Unmarshal(plain, value) == nil
}

// codeForm is the page that asks for a code.
type codeForm struct {
	Client, Action, Request, Pending string
	Problem                          string
}

// afterPassword goes on once the password was right: to the second factor, to
// setting one up, or to a login.
func (s *Server) afterPassword(w http.ResponseWriter, r *http.Request, req *AuthorizationRequest, client *Client, user User) error {
	if s.cfg.SecondFactor == SecondFactorOff {
		return s.startLogin(w, r, req, user, passwordMethod)
	}
	_, err := s.cfg.Store.FindSecondFactor(r.Context(), user.ID)
	missing := errors.Is(err, ErrNotFound)
	switch {
	case err != nil && !missing:
		return fmt.Errorf("find second factor: %w", err)
	case missing && s.cfg.SecondFactor == SecondFactorOptional:
		return s.startLogin(w, r, req, user, passwordMethod)
	}
	sealed, err := s.sealRequest(req)
	if err != nil {
		return err
	}
	pending, err := s.sealJSON(pendingPurpose, pendingLogin{req.ID, user.Email, user.ID, sha256.Sum256([]byte(user.PasswordHash)), s.cfg.Now()})
	if err != nil {
		return err
	}
	if missing {
		return s.showEnrolment(w, r, enrolForm{Action: s.endpoint(secondFactorPath), Request: sealed, Pending: pending}, user.ID, user.Email)
	}
	s.showCode(w, r, http.StatusOK, client, codeForm{Request: sealed, Pending: pending})
	return nil
}

func (s *Server) showCode(w http.ResponseWriter, r *http.Request, status int, client *Client, page codeForm) {
	page.Action = s.endpoint(secondFactorPath)
	if client != nil {
		page.Client = displayName(client)
	}
	s.writePage(w, r, status, codePage, page)
}

// handleSecondFactor answers POST /oauth/second_factor {request, pending, code, and
// where one is being set up enrolment}.
func (s *Server) handleSecondFactor(w http.ResponseWriter, r *http.Request) {
	// 1. Our form, this browser, and a password that was right a moment ago and still
	// is.
	form, ok := s.readPageForm(w, r)
	if !ok {
		return
	}
	req, client, ok := s.resumeSignIn(w, r, form.Get("request"))
	if !ok {
		return
	}
	user, err := s.openPending(r, req, form.Get("pending"))
	if errors.Is(err, ErrNotFound) {
		s.showSignIn(w, r, http.StatusOK, req, client, signIn{Problem: s.words(r).text("passkey.late")})
		return
	}
	if err != nil {
		s.unavailablePage(w, r, "sign in", err)
		return
	}
	// 2. A new secret, or a code of the one there is.
	if form.Has("enrolment") {
		s.enrolAtSignIn(w, r, req, user, form)
		return
	}
	err = s.checkSecondFactor(r, user.ID, form.Get("code"))
	if err == nil {
		err = s.startLogin(w, r, req, user, otpMethod)
	}
	s.tallyFailedLogin(otpMethod, err)
	page := codeForm{Request: form.Get("request"), Pending: form.Get("pending")}
	var throttled *throttledError
	var many *TooManyAttempts
	switch {
	case err == nil:
	case errors.As(err, &throttled):
		w.Header().Set("Retry-After", fmt.Sprint(ceilSeconds(throttled.retryAfter)))
		page.Problem = s.words(r).text("signin.throttled", s.words(r).wait(throttled.retryAfter))
		s.showCode(w, r, http.StatusTooManyRequests, client, page)
	case errors.As(err, &many):
		w.Header().Set("Retry-After", fmt.Sprint(ceilSeconds(many.For)))
		page.Problem = s.words(r).text("code.many", s.words(r).wait(many.For))
		s.showCode(w, r, http.StatusTooManyRequests, client, page)
	case errors.Is(err, errCode):
		s.audit(r, "sign-in failed", zap.String("user_id", user.ID), zap.String("method", otpMethod), zap.Error(err))
		page.Problem = s.words(r).text("code.wrong")
		s.showCode(w, r, http.StatusOK, client, page)
	default:
		s.unavailablePage(w, r, "sign in", err)
	}
}

// openPending returns the user whose password was right for this request.
// ErrNotFound: too long ago, for another request, or it has changed since.
func (s *Server) openPending(r *http.Request, req *AuthorizationRequest, sealed string) (User, error) {
	var pending pendingLogin
	if !s.openJSON(pendingPurpose, sealed, &pending) || pending.RequestID != req.ID || s.cfg.Now().Sub(pending.StartedAt) > pendingLifetime {
		return User{}, ErrNotFound
	}
	user, err := s.cfg.Store.FindUserByEmail(r.Context(), pending.Email)
	if err != nil {
		return User{}, err
	}
	if now := sha256.Sum256([]byte(user.PasswordHash)); user.ID != pending.UserID || user.Disabled || !hmac.Equal(now[:], pending.Password[:]) {
		return User{}, ErrNotFound
	}
	return user, nil
}
