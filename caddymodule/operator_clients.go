package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/caddymodule/admin"
	"github.com/caddy-scope/caddy-scope/issuer"
)

// provisionGrants checks the grant types that are on for clients in the database.
func (a *App) provisionGrants() error {
	for _, name := range a.Grants {
		switch {
		case grantTypes[name] == "":
			return a.at("grants", 0, fmt.Errorf("grants: %q is not one of client_credentials, device_code, jwt_bearer", name))
		case grantTypes[name] == jwtBearer && len(a.IdentityProviders) == 0:
			return a.at("grants", 0, errors.New("grants: jwt_bearer needs an identity_provider whose assertions count"))
		}
	}
	return nil
}

// operatorClient returns a client that an operator has added. What was said of it
// is held against the configuration of today.
func (a *App) operatorClient(ctx context.Context, clientID string) (*issuer.Client, error) {
	row, err := a.runtime.db.FindOperatorClient(ctx, clientID)
	if err != nil {
		return nil, err
	}
	if row.DisabledAt != nil {
		return nil, issuer.ErrNotFound
	}
	var digests []issuer.Digest
	for _, digest := range []*issuer.Digest{row.Secret, row.Previous} {
		if digest != nil {
			digests = append(digests, *digest)
		}
	}
	var spec admin.ClientSpec
	if err = json.Unmarshal(row.Settings, &spec); err == nil {
		var client *issuer.Client
		if client, err = a.checkOperatorClient(row.ID, spec, digests); err == nil {
			a.misfits.fits(clientID)
			return client, nil
		}
	}
	if a.misfits.isNews(clientID, row.Settings, err.Error()) { // it may come with every request
		a.logger.Warn("a client that was added does not fit the configuration any more and is refused; see: caddy oauth client show", zap.String("client_id", clientID), zap.Error(err))
	}
	return nil, issuer.ErrNotFound
}

// checkOperatorClient makes the client that an operator describes, by the rules
// for clients of the configuration. It reads no file and no variable on anybody's
// behalf: nothing is a placeholder.
func (a *App) checkOperatorClient(id string, spec admin.ClientSpec, secrets []issuer.Digest) (*issuer.Client, error) {
	for word, values := range map[string][]string{
		"redirect_uris": spec.RedirectURIs, "post_logout_redirect_uris": spec.PostLogoutRedirectURIs, "introspect": spec.Introspect, "resource": {spec.Resource},
	} {
		if slices.ContainsFunc(values, func(value string) bool { return strings.ContainsAny(value, "{}") }) {
			return nil, fmt.Errorf("%s: braces are of placeholders, which are for the configuration", word)
		}
	}
	settings := &ClientSettings{
		ID: id, Name: spec.Name, RedirectURIs: spec.RedirectURIs, PostLogoutRedirectURIs: spec.PostLogoutRedirectURIs,
		AuthMethods: spec.AuthMethods, Grants: spec.Grants, Scopes: spec.Scopes, Resource: spec.Resource, Introspect: spec.Introspect, PKCE: spec.PKCE,
		JWKS: string(spec.JWKS), RequirePushedAuthorizationRequests: spec.RequirePushed, DPoPBoundAccessTokens: spec.RequireDPoP,
	}
	client, err := a.clientWith(settings, secrets)
	if err != nil {
		return nil, err
	}
	for i, grant := range client.Grants {
		if !slices.Contains(a.grants(), grant) {
			return nil, fmt.Errorf("grants: %s is off here: no client of the configuration uses it; turn it on with `grants %[1]s` in the oauth block, and reload", spec.Grants[i])
		}
	}
	if _, err := a.policies.Limit(client); err != nil {
		return nil, errors.New("a client_policy denies the host of its redirect_uri")
	}
	return client, nil
}

// administration is what operators do, on this configuration. keys and hear may
// be nil.
func (a *App) administration(rt *runtime) *admin.Admin {
	configured := make(map[string]admin.Configured, len(a.clients))
	for i := range a.Clients {
		s := &a.Clients[i]
		configured[s.ID] = admin.Configured{Client: a.clients[s.ID], Source: s.Source}
	}
	desk := &admin.Admin{Store: rt.db, Configured: configured, Check: a.checkOperatorClient, Keys: rt.keys, KeysConfigured: len(a.keys) > 0}
	if rt.view != nil {
		desk.Hear = rt.view.CatchUp
	}
	return desk
}
