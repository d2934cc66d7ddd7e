package issuer

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	"github.com/caddy-scope/caddy-scope/issuer/fetch"
	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	maxRedirectURIs = 20
	maxMetadataText = 2048 // bytes of one member
)

// clientMetadata is what a client says of itself, as far as it counts here. It
// is kept and answered in this form: what is answered is what is enforced.
// RFC 7591 section 2.
type clientMetadata struct {
	Name            string          `json:"client_name,omitempty"`
	RedirectURIs    []string        `json:"redirect_uris"`
	AuthMethod      string          `json:"token_endpoint_auth_method"`
	Grants          []string        `json:"grant_types"`
	ResponseTypes   []string        `json:"response_types"`
	Scope           string          `json:"scope,omitempty"`
	JWKSURI         string          `json:"jwks_uri,omitempty"`
	JWKS            json.RawMessage `json:"jwks,omitempty"`
	ClientURI       string          `json:"client_uri,omitempty"`
	LogoURI         string          `json:"logo_uri,omitempty"`
	TOSURI          string          `json:"tos_uri,omitempty"`
	PolicyURI       string          `json:"policy_uri,omitempty"`
	SoftwareID      string          `json:"software_id,omitempty"`
	SoftwareVersion string          `json:"software_version,omitempty"`
	ApplicationType string          `json:"application_type,omitempty"`
	RequireDPoP     bool            `json:"dpop_bound_access_tokens,omitempty"` // RFC 9449 section 5.2
	// Of an OpenID provider only. OpenID Connect RP-Initiated Logout section 3.1;
	// OpenID Connect Registration section 2, whose default is RS256.
	PostLogoutURIs   []string `json:"post_logout_redirect_uris,omitempty"`
	IDTokenAlgorithm string   `json:"id_token_signed_response_alg,omitempty"`

	authMethods []string // all that it may use
	scopes      oauth.ScopeSet
	keys        ClientKeys // of JWKS
}

// selfRegisteredGrants are those that a client may give itself. Not
// client_credentials, which needs no user's consent; not the device grant, in
// which nothing shows where the tokens go.
var selfRegisteredGrants = []string{grantAuthorizationCode, grantRefreshToken}

func invalidMetadata(description string) *oauth.Error {
	return &oauth.Error{Code: oauth.CodeInvalidClientMetadata, Description: description}
}

// metadataReader takes members out of an object and remembers the first that is
// not what it should be.
type metadataReader struct {
	members map[string]json.RawMessage
	err     *oauth.Error
}

func (r *metadataReader) read(name string, into any) {
	raw, sent := r.members[name]
	if sent && json.Unmarshal(raw, into) != nil && r.err == nil {
		r.err = invalidMetadata("A member is not of the type that it must be.")
	}
}

func (r *metadataReader) text(name string) (value string) {
	r.read(name, &value)
	if len(value) > maxMetadataText && r.err == nil {
		r.err = invalidMetadata("A member is too long.")
	}
	return value
}

// link is an address that is kept for whoever asks, and that nobody here opens
// or shows. One that is not https is dropped. SECURITY-CASES D-02.
func (r *metadataReader) link(name string) string {
	value := r.text(name)
	if u, err := url.Parse(value); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return ""
	}
	return value
}

func (r *metadataReader) list(name string, otherwise ...string) (values []string) {
	r.read(name, &values)
	if len(values) == 0 {
		return otherwise
	}
	return values
}

// readClientMetadata checks what a client says of itself. defaultMethod is how
// it authenticates where it does not say. What it may not have (grants, unknown
// scopes) is left out, as RFC 7591 section 3.2.1 allows; what cannot work is an
// error.
func (s *Server) readClientMetadata(members map[string]json.RawMessage, defaultMethod string) (clientMetadata, *oauth.Error) {
	r := &metadataReader{members: members}
	m := clientMetadata{
		Name:            cleanText(r.text("client_name")),
		RedirectURIs:    r.list("redirect_uris"),
		AuthMethod:      r.text("token_endpoint_auth_method"),
		ResponseTypes:   r.list("response_types", "code"),
		JWKSURI:         r.text("jwks_uri"),
		JWKS:            members["jwks"],
		ClientURI:       r.link("client_uri"),
		LogoURI:         r.link("logo_uri"),
		TOSURI:          r.link("tos_uri"),
		PolicyURI:       r.link("policy_uri"),
		SoftwareID:      cleanText(r.text("software_id")),
		SoftwareVersion: cleanText(r.text("software_version")),
		ApplicationType: r.text("application_type"),
	}
	r.read("dpop_bound_access_tokens", &m.RequireDPoP)
	if s.cfg.OpenID {
		m.PostLogoutURIs, m.IDTokenAlgorithm = r.list("post_logout_redirect_uris"), "ES256"
	}
	if m.AuthMethod == "" {
		m.AuthMethod = defaultMethod
	}
	m.authMethods = []string{m.AuthMethod}
	for _, grant := range r.list("grant_types", grantAuthorizationCode) {
		if slices.Contains(selfRegisteredGrants, grant) && !slices.Contains(m.Grants, grant) {
			m.Grants = append(m.Grants, grant)
		}
	}
	scope, err := oauth.ParseScope(r.text("scope"))
	if m.scopes = scope.Intersect(s.cfg.Catalog.Names()); len(m.scopes) > 0 {
		m.Scope = m.scopes.String()
	}
	switch {
	case r.err != nil:
		return m, r.err
	case err != nil:
		return m, invalidMetadata("The scope is malformed.")
	case !slices.Contains(m.ResponseTypes, "code") || !slices.Contains(m.Grants, grantAuthorizationCode):
		return m, invalidMetadata("Only clients of the authorization code grant can register.")
	case m.ApplicationType != "" && m.ApplicationType != "web" && m.ApplicationType != "native":
		return m, invalidMetadata("The application_type is neither web nor native.")
	case members["software_statement"] != nil:
		return m, &oauth.Error{Code: oauth.CodeUnapprovedStatement, Description: "Software statements are not accepted."}
	}
	m.ResponseTypes = []string{"code"}
	if e := checkRedirectURIs(m.RedirectURIs); e != nil {
		return m, e
	}
	if len(m.PostLogoutURIs) > 0 {
		if e := checkRedirectURIs(m.PostLogoutURIs); e != nil {
			return m, invalidMetadata("The post_logout_redirect_uris are not what redirect_uris may be.")
		}
	}
	return m, m.readKeys()
}

// checkRedirectURIs refuses every list with something in it that is no safe
// place for a code. SECURITY-CASES D-01.
func checkRedirectURIs(uris []string) *oauth.Error {
	invalid := func(description string) *oauth.Error {
		return &oauth.Error{Code: oauth.CodeInvalidRedirectURI, Description: description}
	}
	if len(uris) == 0 || len(uris) > maxRedirectURIs {
		return invalid(fmt.Sprintf("From 1 to %d redirect_uris are needed.", maxRedirectURIs))
	}
	for _, uri := range uris {
		if len(uri) > maxMetadataText || CheckRedirectURI(uri) != nil {
			return invalid("A redirect URI must be https, http on a loopback host, or a private scheme with a dot, without fragment, user name or wildcard.")
		}
	}
	return nil
}

// readKeys checks where the keys of private_key_jwt are. RFC 7591 section 2:
// not both.
func (m *clientMetadata) readKeys() *oauth.Error {
	if m.JWKS != nil {
		keys, err := parseForeignKeys(m.JWKS)
		if err != nil {
			return invalidMetadata("The jwks is not a JWK set of public keys for ES256, RS256 or EdDSA.")
		}
		m.keys = keys
	}
	if m.JWKSURI != "" {
		if _, err := fetch.CheckURL(m.JWKSURI); err != nil {
			return invalidMetadata("The jwks_uri must be an https URL with a path.")
		}
	}
	if m.JWKS != nil && m.JWKSURI != "" {
		return invalidMetadata("The jwks contradicts the jwks_uri.")
	}
	return nil
}

func (m *clientMetadata) hasKeys() bool { return m.JWKS != nil || m.JWKSURI != "" }

// revision is a digest of all that an approval was given for: another one, and
// the user is asked again.
func (m *clientMetadata) revision() Digest {
	material := *m
	material.ClientURI, material.LogoURI, material.TOSURI, material.PolicyURI = "", "", "", ""
	material.SoftwareID, material.SoftwareVersion, material.ApplicationType = "", "", ""
	material.PostLogoutURIs, material.IDTokenAlgorithm = nil, ""
	material.RedirectURIs = slices.Sorted(slices.Values(m.RedirectURIs))
	text, err := json.Marshal(struct {
		clientMetadata
		Methods []string
	}{material, m.authMethods})
	if err != nil {
		panic(err) // strings, and JSON that was read
	}
	return sha256.Sum256(text)
}

// client is the client that these metadata make.
func (m *clientMetadata) client(id string, registration RegistrationKind) *Client {
	c := &Client{
		ID: id, Name: m.Name, Registration: registration, Revision: m.revision(),
		AuthMethods: m.authMethods, RedirectURIs: m.RedirectURIs, PostLogoutRedirectURIs: m.PostLogoutURIs, Grants: m.Grants, Scopes: m.scopes, RequireDPoP: m.RequireDPoP,
	}
	if m.JWKS != nil {
		c.JWKS = StaticKeys(m.keys)
	}
	return c
}
