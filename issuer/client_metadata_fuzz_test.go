package issuer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// FuzzMetadataDocument: whatever is accepted names itself, has safe redirects and
// no secret, to encoding/json too, and says the same when it is read again.
func FuzzMetadataDocument(f *testing.F) {
	const id = "https://chat.example/client.json"
	for _, seed := range []string{
		`{"client_id":"ID","client_name":"Chat","redirect_uris":["https://chat.example/cb"]}`,
		`{"client_id":"ID","client_name":"Chat","redirect_uris":["http://localhost/cb"],"token_endpoint_auth_methods_supported":["none","private_key_jwt"],"jwks_uri":"https://chat.example/keys"}`,
		`{"client_id":"ID","client_id":"x","client_name":"Chat","redirect_uris":["javascript:x"]}`,
		`{"client_id":"ID","client_name":"Chat","redirect_uris":["com.example:/x"],"grant_types":["refresh_token","authorization_code"],"scope":"jobs:read x"}`,
		`{"client_id":"ID","client_name":"Chat","redirect_uris":["https://a/"],"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}}`,
		`[]`, `null`, ``, `{"client_id":null}`,
	} {
		f.Add(strings.ReplaceAll(seed, "ID", id))
	}
	catalog, err := oauth.NewCatalog([]oauth.Scope{{Name: "jobs:read", Description: "Search jobs"}})
	if err != nil {
		f.Fatal(err)
	}
	s := &Server{cfg: Config{Catalog: catalog}}
	r := &registry{server: s}
	f.Fuzz(func(t *testing.T, document string) {
		client, err := r.readDocument(id, []byte(document))
		if err != nil {
			return
		}
		var naive map[string]any
		if err := json.Unmarshal([]byte(document), &naive); err != nil {
			t.Fatalf("%q is no JSON: %v", document, err)
		}
		uris, _ := naive["redirect_uris"].([]any)
		if naive["client_id"] != id || naive["client_secret"] != nil || len(uris) != len(client.RedirectURIs) || len(uris) == 0 {
			t.Fatalf("%q makes %+v", document, client)
		}
		for i, uri := range client.RedirectURIs {
			if uri != uris[i] || CheckRedirectURI(uri) != nil || strings.HasPrefix(strings.ToLower(uri), "javascript:") {
				t.Fatalf("%q redirects to %q", document, uri)
			}
		}
		if client.Name == "" || client.SecretDigests != nil || len(client.AuthMethods) == 0 || !client.SelfRegistered() {
			t.Fatalf("%q makes %+v", document, client)
		}
		for _, method := range client.AuthMethods {
			if method != methodNone && (method != methodPrivateKeyJWT || client.JWKS == nil) {
				t.Fatalf("%q authenticates by %q", document, method)
			}
		}
		for _, grant := range client.Grants {
			if !slices.Contains(selfRegisteredGrants, grant) {
				t.Fatalf("%q has the grant %q", document, grant)
			}
		}
		again, err := r.readDocument(id, []byte(document))
		if err != nil || again.Revision != client.Revision {
			t.Fatalf("%q reads in two ways", document)
		}
	})
}
