package issuer

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// LoginMethod is a way in which users sign in somewhere else than on our own
// page.
type LoginMethod struct {
	// Name tells the method from the others, in addresses and in gpt_logins: up
	// to 40 lower-case letters, digits, `.`, `_` and `-`, and neither "password" nor "passkey".
	Name string
	// Label is what users know the place as: "Google".
	Label string
	// Provider is that place, or App; not both.
	Provider Provider
	App      App
	// SignOutThere signs users out at the provider too when they sign out here; it
	// must be a LogoutProvider.
	SignOutThere bool
	// SignOutEndsSessions ends the sessions of a user who signs out, here or
	// there, and not their login alone.
	SignOutEndsSessions bool
}

var methodName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,39}$`)

// passwordMethod is what gpt_logins calls `login password`.
const passwordMethod = "password"

// Provider is an OpenID provider: users go there and come back with a code.
// An error that is a *ProviderRefusal ends this attempt; any other means that
// the provider could not say.
type Provider interface {
	// AuthorizationURL returns where the browser is sent to sign in.
	AuthorizationURL(ctx context.Context, request ProviderRequest) (string, error)
	// Redeem checks the answer that the browser brought back and returns whom it
	// names.
	Redeem(ctx context.Context, request ProviderRequest, answer url.Values) (ExternalUser, error)
}

// LogoutProvider is a Provider that users can sign out at.
type LogoutProvider interface {
	Provider
	// ReadLogoutToken checks what the provider sends when a user has signed out
	// there. Errors are those of Provider. OpenID Connect Back-Channel Logout
	// section 2.6.
	ReadLogoutToken(ctx context.Context, token string) (ProviderLogout, error)
	// EndSessionURL returns where the browser is sent to sign out there; empty: the
	// provider has no such place. hint is the ExternalUser.LogoutHint of the login;
	// may be empty. OpenID Connect RP-Initiated Logout section 2.
	EndSessionURL(ctx context.Context, hint, redirectURI, state string) (string, error)
}

// ProviderLogout is a user who has signed out at a provider. One of Subject and
// SessionID may be empty: then every session of the user there, or whoever had
// that session.
type ProviderLogout struct {
	Authority          string
	Subject, SessionID string
	TokenID            string // `jti`
	// RememberFor is how long the same token could be accepted again.
	RememberFor time.Duration
	// EndSessions ends the user's sessions too.
	EndSessions bool
}

// ProviderRequest is one sign-in at a provider.
type ProviderRequest struct {
	RedirectURI string
	State       string
	Nonce       string
	Verifier    string // code_verifier, RFC 7636
	StartedAt   time.Time
	// Reauthenticate asks for the user's credentials even if they are signed in
	// there (prompt=login).
	Reauthenticate bool
	// SelectAccount lets the user choose an account (prompt=select_account).
	SelectAccount bool
	// MaxAge is how long ago they may have given them; nil: any.
	MaxAge    *time.Duration
	LoginHint string // an email address; may be empty
	UILocales string // language tags between spaces; may be empty
}

// ProviderRefusal: the provider answered, and not with a user.
type ProviderRefusal struct {
	// Denied: the user did not want to. Otherwise the answer is not to be
	// trusted, or names somebody who may not sign in here.
	Denied bool
	Err    error // for the log; holds no code and no token
}

func (r *ProviderRefusal) Error() string { return r.Err.Error() }
func (r *ProviderRefusal) Unwrap() error { return r.Err }

// ExternalUser is a user as another authority names them.
type ExternalUser struct {
	Authority string         // who says so: the issuer of tokens
	Subject   string         // the authority's own name for the user
	UserID    string         // becomes `sub` in tokens when the user is first seen
	Name      string         // what pages call the user; may be empty
	Claims    map[string]any // kept for the upstream: strings, numbers, booleans and lists of strings
	Profile   map[string]any // those of ProfileClaims that the authority gave: strings, and email_verified
	AuthTime  time.Time      // when they gave their credentials; zero: not known
	SessionID string         // `sid` of the provider; may be empty
	// LogoutHint is what the provider wants to be shown when the user signs out
	// (id_token_hint); empty: it is not needed. Kept sealed.
	LogoutHint string
}

// maxSubject bounds names of users, in bytes. OpenID Connect Core section 2.
const maxSubject = 255

// checkExternalUser refuses names that could not be told apart in a log or a
// header, and whatever else of the user no row can hold.
func checkExternalUser(user ExternalUser) error {
	for what, name := range map[string]string{"subject": user.Subject, "user id": user.UserID} {
		if name == "" || len(name) > maxSubject || !utf8.ValidString(name) {
			return errors.New("the " + what + " is empty, too long or not UTF-8")
		}
		for _, c := range name {
			if unicode.IsControl(c) {
				return errors.New("the " + what + " holds a control character")
			}
		}
	}
	if !isText(user.Name) || !isText(user.SessionID) {
		return errors.New("the name or the sid holds bytes that are no text")
	}
	for _, claims := range []map[string]any{user.Claims, user.Profile} {
		for name, value := range claims {
			if !holdsText(value) {
				return errors.New("the claim " + name + " holds bytes that are no text")
			}
		}
	}
	return nil
}

// holdsText is true of all values of ExternalUser.Claims that a row can hold.
func holdsText(value any) bool {
	switch v := value.(type) {
	case string:
		return isText(v)
	case []any:
		return !slices.ContainsFunc(v, func(item any) bool { return !holdsText(item) })
	}
	return true
}

// isText reports whether a row can hold the text: Postgres has no NUL.
func isText(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// CheckLoginMethods refuses methods that could not be told apart, or that lead
// nowhere. The error names the method.
func CheckLoginMethods(methods []LoginMethod) error {
	seen := map[string]bool{passwordMethod: true, PasskeyMethod: true}
	for _, m := range methods {
		switch {
		case !methodName.MatchString(m.Name):
			return errors.New("login " + m.Name + ": the name has other characters than a-z, 0-9, ., _ and -, or is longer than 40")
		case seen[m.Name]:
			return errors.New("login " + m.Name + " is set twice; give one of them another name")
		case (m.Provider == nil) == (m.App == nil):
			return errors.New("login " + m.Name + ": needs either Provider or App")
		case m.SignOutThere && m.logout() == nil:
			return errors.New("login " + m.Name + ": nobody can be signed out there")
		}
		seen[m.Name] = true
	}
	return nil
}

// logout returns the provider if users can sign out at it, or nil.
func (m *LoginMethod) logout() LogoutProvider {
	provider, _ := m.Provider.(LogoutProvider)
	return provider
}

// method returns the method of that name, or nil.
func (s *Server) method(name string) *LoginMethod {
	for i := range s.cfg.Methods {
		if s.cfg.Methods[i].Name == name {
			return &s.cfg.Methods[i]
		}
	}
	return nil
}

// offersMethod reports whether users may sign in by the method of that name.
func (s *Server) offersMethod(name string) bool {
	switch name {
	case passwordMethod:
		return s.cfg.Password && s.cfg.SecondFactor != SecondFactorRequired
	case otpMethod:
		return s.cfg.Password
	case PasskeyMethod:
		return s.passkeys != nil
	}
	return s.method(name) != nil
}

// onlyMethod returns the method that a user has no choice but to take, or nil.
func (s *Server) onlyMethod() *LoginMethod {
	if s.cfg.Password || len(s.cfg.Methods) != 1 {
		return nil
	}
	return &s.cfg.Methods[0]
}

// methodPath is where a method's form posts to, and where a provider sends the
// browser back to: one address each, so that an answer is never taken for
// another provider's. RFC 9700 section 4.4.2.
func methodPath(name string) string { return loginPath + "/" + name }
