package issuer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// identityAssertionType is the `typ` of an identity assertion. No JWT of another
	// kind that the provider signs, such as an ID token, passes for one.
	identityAssertionType = "oauth-id-jag+jwt"
	// identityAssertionProfile says in metadata that they are taken.
	identityAssertionProfile = "urn:ietf:params:oauth:grant-profile:id-jag"

	// identityAssertionTTL is the longest that one may hold. Each is remembered so
	// long, whatever the clock of the node that took it says.
	identityAssertionTTL = time.Hour
)

// identityAssertion is an identity assertion JWT authorization grant (ID-JAG): an
// identity provider says that the client may act for the user here.
// draft-ietf-oauth-identity-assertion-authz-grant section 3.
type identityAssertion struct {
	raw    string
	header assertionHeader
	claims map[string]any // all, as the provider wrote them

	Issuer, Subject, ClientID, ID            string
	Audience, Resources                      audience
	ExpiresAt, IssuedAt, NotBefore, AuthTime *jsonSeconds
	Scope, Tenant                            *string
	Details, Actor, Confirmation             json.RawMessage
}

// readIdentityAssertion reads one in form only: nothing of it is proven.
func readIdentityAssertion(raw string) (a identityAssertion, err error) {
	a.raw = raw
	segments := strings.Split(raw, ".")
	if len(raw) > maxAssertion || len(segments) != 3 || strings.ContainsAny(raw, "\r\n") { // which decoders skip
		return a, errors.New("it is not a compact JWT, or too long")
	}
	h := &a.header
	if _, err := readMembers(segments[0], map[string]any{"typ": &h.Type, "alg": &h.Algorithm, "kid": &h.KeyID, "crit": &h.Critical}); err != nil {
		return a, fmt.Errorf("its header: %w", err)
	}
	if strings.ToLower(strings.TrimPrefix(h.Type, "application/")) != identityAssertionType {
		return a, errors.New("its typ is not " + identityAssertionType)
	}
	payload, err := readMembers(segments[1], map[string]any{
		"iss": &a.Issuer, "sub": &a.Subject, "aud": &a.Audience, "client_id": &a.ClientID, "jti": &a.ID,
		"exp": &a.ExpiresAt, "iat": &a.IssuedAt, "nbf": &a.NotBefore, "auth_time": &a.AuthTime,
		"scope": &a.Scope, "resource": &a.Resources, "tenant": &a.Tenant,
		"authorization_details": &a.Details, "act": &a.Actor, "cnf": &a.Confirmation,
	})
	if err != nil {
		return a, fmt.Errorf("its payload: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(payload))
	decoder.UseNumber()
	return a, decoder.Decode(&a.claims)
}

// readMembers decodes a segment and those of its members that are named, each by
// its exact name and there once: whoever reads it reads the same.
func readMembers(segment string, named map[string]any) ([]byte, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return nil, errNotObject
	}
	members, err := readJSONObject(raw)
	if err != nil {
		return nil, err
	}
	for name, into := range named {
		if value, found := members[name]; found && json.Unmarshal(value, into) != nil {
			return nil, fmt.Errorf("%s is not of the type that it must be", name)
		}
	}
	return raw, nil
}

// signedBy reports whether the assertion is the provider's. Its keys may have
// changed since they were fetched. An error means that nobody can say.
func (a *identityAssertion) signedBy(ctx context.Context, p *identityProvider) (bool, error) {
	for _, ctx := range []context.Context{ctx, withNewestKeys(ctx)} {
		keys, err := p.publicKeys(ctx)
		if err != nil {
			return false, err
		}
		if signedByOneOf(a.raw, a.header, keys) {
			return true, nil
		}
	}
	return false, nil
}

// hold checks that the claims speak of this client, to us, now. The error is for
// the log. The draft, sections 3.1 and 4.4.1; RFC 7523 section 3.
func (a *identityAssertion) hold(issuer, clientID string, p *identityProvider, now time.Time) error {
	switch {
	// Exactly one: what is for another server too, that one could bring here.
	case len(a.Audience) != 1 || a.Audience[0] != issuer:
		return errors.New("aud is not this server alone")
	case a.ClientID != clientID:
		return errors.New("client_id is not the client that brings it")
	case a.ID == "" || len(a.ID) > maxJTI:
		return errors.New("jti is missing or too long")
	case a.IssuedAt == nil || a.IssuedAt.time().After(now.Add(clockSkew)):
		return errors.New("iat is missing or in the future")
	case a.ExpiresAt == nil || !now.Before(a.ExpiresAt.time().Add(clockSkew)):
		return errors.New("exp is missing or past")
	case a.ExpiresAt.time().After(now.Add(identityAssertionTTL + clockSkew)):
		return fmt.Errorf("exp is more than %s away", identityAssertionTTL)
	case a.NotBefore != nil && a.NotBefore.time().After(now.Add(clockSkew)):
		return errors.New("nbf is in the future")
	case a.AuthTime != nil && a.AuthTime.time().After(now.Add(clockSkew)):
		return errors.New("auth_time is in the future")
	case p.Tenant != (a.Tenant != nil):
		return errors.New("tenant is there and not expected, or the other way round")
	// What would limit the grant and is not understood here must not be passed over.
	case a.Details != nil:
		return errors.New("authorization_details are not supported")
	case a.Actor != nil:
		return errors.New("act is not supported")
	}
	return nil
}

// boundTo returns the thumbprint of the key that the assertion may only be used
// with; empty: any. RFC 7800 section 3.1, RFC 9449 section 6.1.
func (a *identityAssertion) boundTo() (string, error) {
	if a.Confirmation == nil {
		return "", nil
	}
	members, err := readJSONObject(a.Confirmation)
	var thumbprint string
	if err != nil || len(members) != 1 || json.Unmarshal(members["jkt"], &thumbprint) != nil || thumbprint == "" {
		return "", errors.New("cnf names another way of proof than DPoP")
	}
	return thumbprint, nil
}

// digest is what the assertion is remembered by.
func (a *identityAssertion) digest() Digest {
	return sha256.Sum256([]byte(a.Issuer + "\x00" + a.ID))
}

// namesResource reports whether the assertion is for the resource; one without
// the claim is for any, one whose list is empty for none.
func (a *identityAssertion) namesResource(same func(named string) bool) bool {
	return a.Resources == nil || slices.ContainsFunc(a.Resources, same)
}
