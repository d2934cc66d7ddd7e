package issuer

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// PasskeyMethod is what gpt_logins calls a sign-in with a passkey.
const PasskeyMethod = "passkey"

// maxPasskeys is how many a user may have.
const maxPasskeys = 20

// newRelyingParty makes what the ceremonies are checked by: only the issuer's own
// origin counts, and the user must have been verified (by a fingerprint, a PIN),
// so that a passkey is two factors. WebAuthn sections 7.1 and 7.2.
func newRelyingParty(cfg *Config) (*webauthn.WebAuthn, error) {
	host, err := passkeyHost(cfg.Issuer)
	if err != nil {
		return nil, err
	}
	name := cfg.Look.name
	if name == "" {
		name = host
	}
	resident := true
	return webauthn.New(&webauthn.Config{
		RPID: host, RPDisplayName: name, RPOrigins: []string{oauth.Origin(cfg.Issuer)},
		AttestationPreference: protocol.PreferNoAttestation,
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			RequireResidentKey: &resident, ResidentKey: protocol.ResidentKeyRequirementRequired,
			UserVerification: protocol.VerificationRequired,
		},
	})
}

// passkeyHost is what passkeys belong to: the issuer's host, without the port.
func passkeyHost(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return "", fmt.Errorf("passkeys belong to a host name, and the issuer %s has an address in its place", issuer)
	}
	return u.Hostname(), nil
}

// CheckPasskeys reports why users of this issuer cannot have passkeys.
func CheckPasskeys(issuer string) error {
	_, err := passkeyHost(issuer)
	return err
}

// passkeyAlgorithms are what authenticators sign with: nearly all with ES256,
// Windows with RS256.
var passkeyAlgorithms = []protocol.CredentialParameter{
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: protocol.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

// ceremony is what was asked of an authenticator. It travels sealed in the form
// that brings the answer: it takes no row, nobody can change it, and it holds
// only in the browser that it was given to. Its challenge counts once, on
// whichever node.
type ceremony struct {
	Session       webauthn.SessionData
	BrowserDigest Digest
	StartedAt     time.Time
}

// Purposes of a ceremony; an answer to one is none to the other.
const (
	passkeyCreate = "passkey create"
	passkeyGet    = "passkey get"
)

// passkeyForm is a form that only a script can fill in.
type passkeyForm struct {
	Action   string
	Ceremony string // sealed
	Options  string // JSON, for the browser's WebAuthn
	Script   string
}

// script is the address of the script that fills the form in; empty: there is no
// form.
func (f *passkeyForm) script() string {
	if f == nil {
		return ""
	}
	return f.Script
}

// askForPasskey begins a sign-in by any passkey that the browser has for us.
func (s *Server) askForPasskey(browser Digest) (*passkeyForm, error) {
	assertion, session, err := s.passkeys.BeginDiscoverableLogin()
	if err != nil {
		return nil, fmt.Errorf("ask for a passkey: %w", err)
	}
	return s.passkeyForm(passkeyGet, passkeyLoginPath, assertion.Response, session, browser)
}

// offerPasskey begins the registration of another passkey.
func (s *Server) offerPasskey(browser Digest, user *passkeyUser) (*passkeyForm, error) {
	var known []protocol.CredentialDescriptor
	for _, credential := range user.credentials {
		known = append(known, credential.Descriptor())
	}
	creation, session, err := s.passkeys.BeginRegistration(user, webauthn.WithExclusions(known), webauthn.WithCredentialParameters(passkeyAlgorithms))
	if err != nil {
		return nil, fmt.Errorf("offer a passkey: %w", err)
	}
	return s.passkeyForm(passkeyCreate, credentialsPath, creation.Response, session, browser)
}

func (s *Server) passkeyForm(purpose, path string, options any, session *webauthn.SessionData, browser Digest) (*passkeyForm, error) {
	plain, err := json.Marshal(ceremony{*session, browser, s.cfg.Now()})
	if err != nil {
		return nil, fmt.Errorf("seal ceremony: %w", err)
	}
	asked, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("ceremony: %w", err)
	}
	return &passkeyForm{
		Action: s.endpoint(path), Ceremony: base64.RawURLEncoding.EncodeToString(s.cfg.Secrets.seal(requestAEAD, plain, []byte(purpose))),
		Options: string(asked), Script: s.endpoint(passkeyScriptPath),
	}, nil
}

// errCeremony: the answer is to no question that this browser was asked lately.
var errCeremony = errors.New("not an answer to what this browser was asked")

// openCeremony opens what passkeyForm sealed, in the browser it was sealed for.
func (s *Server) openCeremony(r *http.Request, purpose, sealed string) (*ceremony, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return nil, errCeremony
	}
	plain, _, err := s.cfg.Secrets.open(requestAEAD, raw, []byte(purpose))
	if err != nil {
		return nil, errCeremony
	}
	var c ceremony
	if err := json.Unmarshal(plain, &c); err != nil || s.cfg.Now().Sub(c.StartedAt) > requestLifetime {
		return nil, errCeremony
	}
	cookie, ok := s.readCookie(r, browserCookie)
	if !ok || sha256.Sum256([]byte(cookie)) != c.BrowserDigest {
		return nil, errCeremony
	}
	return &c, nil
}

// useChallenge notes that the challenge was answered. ErrReplayed: it was before.
func (s *Server) useChallenge(r *http.Request, c *ceremony) error {
	return s.useOnce(r, "passkey challenge", c.Session.Challenge)
}

// passkeyUser is a user as WebAuthn sees one.
type passkeyUser struct {
	id          string
	name        string
	credentials []webauthn.Credential
}

func newPasskeyUser(id, name string, passkeys ...Passkey) *passkeyUser {
	user := &passkeyUser{id: id, name: name}
	for _, p := range passkeys {
		user.credentials = append(user.credentials, p.credential())
	}
	return user
}

// WebAuthnID is the user handle: what the authenticator keeps and shows to
// nobody. It is a digest, since it must tell nothing of the user. WebAuthn
// section 14.6.1.
func (u *passkeyUser) WebAuthnID() []byte {
	sum := sha256.Sum256([]byte("caddy-scope user handle\x00" + u.id))
	return sum[:]
}

func (u *passkeyUser) WebAuthnName() string                       { return u.name }
func (u *passkeyUser) WebAuthnDisplayName() string                { return u.name }
func (u *passkeyUser) WebAuthnCredentials() []webauthn.Credential { return u.credentials }

func (p *Passkey) credential() webauthn.Credential {
	c := webauthn.Credential{
		ID: p.CredentialID, PublicKey: p.PublicKey,
		Flags:         webauthn.CredentialFlags{BackupEligible: p.BackupEligible, BackupState: p.BackedUp},
		Authenticator: webauthn.Authenticator{SignCount: uint32(p.SignCount)},
	}
	for _, transport := range p.Transports {
		c.Transport = append(c.Transport, protocol.AuthenticatorTransport(transport))
	}
	return c
}

// newPasskey checks the answer to offerPasskey. Its error is for the log.
func (s *Server) newPasskey(c *ceremony, user *passkeyUser, answer string) (Passkey, error) {
	parsed, err := protocol.ParseCredentialCreationResponseBytes([]byte(answer))
	if err != nil {
		return Passkey{}, explained(err)
	}
	credential, err := s.passkeys.CreateCredential(user, c.Session, parsed)
	if err != nil {
		return Passkey{}, explained(err)
	}
	p := Passkey{
		CredentialID: credential.ID, UserID: user.id, PublicKey: credential.PublicKey, SignCount: int64(credential.Authenticator.SignCount),
		BackupEligible: credential.Flags.BackupEligible, BackedUp: credential.Flags.BackupState, Transports: []string{},
	}
	for _, transport := range credential.Transport {
		if known := cleanText(string(transport)); known != "" && len(p.Transports) < 8 {
			p.Transports = append(p.Transports, known)
		}
	}
	return p, nil
}

// explained adds what the library says to a developer.
func explained(err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.DevInfo != "" {
		return fmt.Errorf("%w: %s", err, e.DevInfo)
	}
	return err
}
