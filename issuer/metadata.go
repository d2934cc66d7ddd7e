package issuer

import (
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// serverMetadata is the RFC 8414 document. With OpenID Connect it holds what
// OpenID Connect Discovery section 3 asks for as well, and is served for both.
type serverMetadata struct {
	Issuer                 string   `json:"issuer"`
	AuthorizationEndpoint  string   `json:"authorization_endpoint"`
	TokenEndpoint          string   `json:"token_endpoint"`
	RevocationEndpoint     string   `json:"revocation_endpoint"`
	IntrospectionEndpoint  string   `json:"introspection_endpoint"`
	DeviceEndpoint         string   `json:"device_authorization_endpoint,omitempty"`
	PushEndpoint           string   `json:"pushed_authorization_request_endpoint"`
	RegistrationEndpoint   string   `json:"registration_endpoint,omitempty"`
	MetadataDocuments      bool     `json:"client_id_metadata_document_supported,omitempty"`
	JWKSURI                string   `json:"jwks_uri"`
	ScopesSupported        []string `json:"scopes_supported,omitempty"`
	ResponseTypes          []string `json:"response_types_supported"`
	ResponseModes          []string `json:"response_modes_supported"`
	Grants                 []string `json:"grant_types_supported"`
	GrantProfiles          []string `json:"authorization_grant_profiles_supported,omitempty"`
	TokenAuthMethods       []string `json:"token_endpoint_auth_methods_supported"`
	TokenAuthAlgorithms    []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	RevocationAuthMethods  []string `json:"revocation_endpoint_auth_methods_supported"`
	RevocationAlgorithms   []string `json:"revocation_endpoint_auth_signing_alg_values_supported"`
	IntrospectAuthMethods  []string `json:"introspection_endpoint_auth_methods_supported"`
	IntrospectAlgorithms   []string `json:"introspection_endpoint_auth_signing_alg_values_supported"`
	CodeChallengeMethods   []string `json:"code_challenge_methods_supported"`
	IssInAuthorizationResp bool     `json:"authorization_response_iss_parameter_supported"`
	DPoPAlgorithms         []string `json:"dpop_signing_alg_values_supported"`
	ProtectedResources     []string `json:"protected_resources,omitempty"`
	*openIDMetadata
}

// openIDMetadata are the members of OpenID Connect Discovery section 3 that RFC
// 8414 does not have.
type openIDMetadata struct {
	UserInfoEndpoint  string   `json:"userinfo_endpoint"`
	EndSession        string   `json:"end_session_endpoint"` // RP-Initiated Logout section 2.1
	SubjectTypes      []string `json:"subject_types_supported"`
	IDTokenAlgorithms []string `json:"id_token_signing_alg_values_supported"`
	Claims            []string `json:"claims_supported"`
	ClaimTypes        []string `json:"claim_types_supported"`
	ACRs              []string `json:"acr_values_supported,omitempty"`
	ClaimsParameter   bool     `json:"claims_parameter_supported"`
	RequestParameter  bool     `json:"request_parameter_supported"`
	// RequestURI: true where it is left out.
	RequestURI bool     `json:"request_uri_parameter_supported"`
	UILocales  []string `json:"ui_locales_supported"`
	Prompts    []string `json:"prompt_values_supported"`
}

// openIDConfigurationPaths are the paths at which the document stands.
func openIDConfigurationPaths(issuer string) []string {
	addresses := oauth.OpenIDConfigurationURLs(issuer)
	paths := make([]string, 0, len(addresses))
	for _, address := range addresses {
		paths = append(paths, strings.TrimPrefix(address, oauth.Origin(issuer)))
	}
	return slices.Compact(paths)
}

// handleServerMetadata serves RFC 8414 metadata at the one path that belongs to
// the issuer; any other is 404, which clients take as "try the next".
func (s *Server) handleServerMetadata(w http.ResponseWriter, r *http.Request) {
	if oauth.Origin(s.cfg.Issuer)+r.URL.Path != oauth.IssuerMetadataURL(s.cfg.Issuer) {
		http.NotFound(w, r)
		return
	}
	writeDocument(w, r, s.serverMetadata())
}

// handleOpenIDConfiguration serves the same document to clients of OpenID
// Connect. A half-filled one would end the discovery of some (trap 27).
func (s *Server) handleOpenIDConfiguration(w http.ResponseWriter, r *http.Request) {
	writeDocument(w, r, s.serverMetadata())
}

func (s *Server) serverMetadata() serverMetadata {
	origin := oauth.Origin(s.cfg.Issuer)
	methods := []string{methodNone, methodBasic, methodPost, methodPrivateKeyJWT}
	m := serverMetadata{
		Issuer:                s.cfg.Issuer,
		AuthorizationEndpoint: origin + "/oauth/authorize",
		TokenEndpoint:         origin + "/oauth/token",
		RevocationEndpoint:    origin + "/oauth/revoke",
		IntrospectionEndpoint: origin + "/oauth/introspect",
		PushEndpoint:          origin + "/oauth/par",
		JWKSURI:               origin + "/oauth/jwks.json",
		// offline_access is listed here and nowhere else (MCP authorization).
		ScopesSupported:        append(s.cfg.Catalog.Names().Without(s.appsScopes()), "offline_access"),
		ResponseTypes:          []string{"code"},
		ResponseModes:          []string{"query"},
		Grants:                 s.cfg.Grants,
		TokenAuthMethods:       methods,
		TokenAuthAlgorithms:    assertionAlgorithms,
		RevocationAuthMethods:  methods,
		RevocationAlgorithms:   assertionAlgorithms,
		IntrospectAlgorithms:   assertionAlgorithms,
		IntrospectAuthMethods:  methods[1:], // never none: RFC 7662 section 2.1
		CodeChallengeMethods:   []string{"S256"},
		IssInAuthorizationResp: true,
		DPoPAlgorithms:         dpop.Algorithms,
	}
	if s.offers(grantDeviceCode) {
		m.DeviceEndpoint = origin + "/oauth/device_authorization"
	}
	if s.registry.with.Dynamic {
		m.RegistrationEndpoint = s.endpoint(registerPath)
	}
	if s.offers(grantJWTBearer) {
		m.GrantProfiles = []string{identityAssertionProfile}
	}
	m.MetadataDocuments = s.registry.with.MetadataDocuments
	for _, resource := range s.cfg.Resources() {
		m.ProtectedResources = append(m.ProtectedResources, resource.Identifier)
	}
	if s.cfg.OpenID {
		m.openIDMetadata = s.openIDMetadata()
	}
	return m
}

func (s *Server) openIDMetadata() *openIDMetadata {
	return &openIDMetadata{
		UserInfoEndpoint:  s.userInfoResource(),
		EndSession:        s.endpoint(endSessionPath),
		SubjectTypes:      []string{"public"},
		IDTokenAlgorithms: []string{"ES256"},
		Claims: slices.Concat([]string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid"},
			identityClaims["profile"], identityClaims["email"]),
		ClaimTypes: []string{"normal"},
		ACRs:       s.authenticationClasses(),
		UILocales:  s.pages.tags(),
		Prompts:    []string{promptNone, promptLogin, promptConsent, promptSelectAccount},
	}
}
