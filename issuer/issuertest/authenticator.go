package issuertest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// Authenticator is a device that holds one passkey and signs what it is told to:
// what a browser would never let it, too. It has a counter.
type Authenticator struct {
	Origin       string // of the page, as the browser tells
	RPID         string // that the passkey is for
	Counter      uint32 // of the last signature
	Uncounted    bool   // the counter stays at zero, as in password managers
	Unverified   bool   // the user was not asked for a fingerprint or a PIN
	Absent       bool   // nobody touched it
	Synced       bool   // the passkey is on other devices too
	CrossOrigin  bool   // the page stands in a frame of another's
	Type         string // of the ceremony, if not the one that it is
	Handle       []byte // of the user
	CredentialID []byte

	key *ecdsa.PrivateKey
}

// Authenticator returns a device without a passkey.
func (s *Scene) Authenticator(t testing.TB) *Authenticator {
	t.Helper()
	a := &Authenticator{Origin: s.URL, RPID: "localhost", CredentialID: make([]byte, 32)}
	_, _ = rand.Read(a.CredentialID)
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	return a
}

// Create makes the passkey that a page asks for, and returns what its script would
// send. WebAuthn section 6.3.2.
func (a *Authenticator) Create(t testing.TB, options string) string {
	t.Helper()
	var asked struct {
		Challenge string
		User      struct{ ID string }
	}
	if err := json.Unmarshal([]byte(options), &asked); err != nil {
		t.Fatalf("options %q: %v", options, err)
	}
	a.Handle, _ = base64.RawURLEncoding.DecodeString(asked.User.ID)
	public, err := a.key.PublicKey.Bytes() // 4, x, y
	if err != nil {
		t.Fatal(err)
	}
	// COSE_Key of ES256, RFC 9053 section 7.1.1.
	key := encode(t, map[int]any{1: 2, 3: -7, -1: 1, -2: public[1:33], -3: public[33:]})
	attested := append(make([]byte, 16), byte(len(a.CredentialID)>>8), byte(len(a.CredentialID))) // no AAGUID
	attested = append(append(attested, a.CredentialID...), key...)
	object := encode(t, map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": a.data(attested)})
	return a.answer(t, map[string]any{"clientDataJSON": a.clientData(t, "webauthn.create", asked.Challenge), "attestationObject": text(object), "transports": []string{"internal"}})
}

// Get signs in with the passkey. WebAuthn section 6.3.3.
func (a *Authenticator) Get(t testing.TB, options string) string {
	t.Helper()
	var asked struct{ Challenge string }
	if err := json.Unmarshal([]byte(options), &asked); err != nil {
		t.Fatalf("options %q: %v", options, err)
	}
	if !a.Uncounted {
		a.Counter++
	}
	data := a.data(nil)
	client := a.clientData(t, "webauthn.get", asked.Challenge)
	raw, _ := base64.RawURLEncoding.DecodeString(client)
	hash := sha256.Sum256(raw)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return a.answer(t, map[string]any{"clientDataJSON": client, "authenticatorData": text(data), "signature": text(signature), "userHandle": text(a.Handle)})
}

// data is the authenticator data. WebAuthn section 6.1.
func (a *Authenticator) data(attested []byte) []byte {
	rp := sha256.Sum256([]byte(a.RPID))
	var flags byte
	for bit, set := range map[byte]bool{1: !a.Absent, 4: !a.Unverified, 8: a.Synced, 16: a.Synced, 64: attested != nil} {
		if set {
			flags |= bit
		}
	}
	return append(binary.BigEndian.AppendUint32(append(rp[:], flags), a.Counter), attested...)
}

func (a *Authenticator) clientData(t testing.TB, kind, challenge string) string {
	t.Helper()
	if a.Type != "" {
		kind = a.Type
	}
	data, err := json.Marshal(map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": a.CrossOrigin})
	if err != nil {
		t.Fatal(err)
	}
	return text(data)
}

func (a *Authenticator) answer(t testing.TB, response map[string]any) string {
	t.Helper()
	id := text(a.CredentialID)
	data, err := json.Marshal(map[string]any{"id": id, "rawId": id, "type": "public-key", "response": response, "clientExtensionResults": map[string]any{}})
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func encode(t testing.TB, value any) []byte {
	t.Helper()
	mode, err := cbor.CTAP2EncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	data, err := mode.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func text(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// Passkeys lets users have passkeys, on the host localhost: they need a name.
func Passkeys() Option {
	return func(s *setup) {
		s.host = "localhost"
		With(func(c *issuer.Config) { c.Passkeys = true })(s)
	}
}
