package issuer

import (
	"errors"
	"net/http"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

var (
	errProof    = &oauth.Error{Code: oauth.CodeInvalidDPoPProof, Description: "The DPoP proof is invalid or was used before."}
	errNoProof  = &oauth.Error{Code: oauth.CodeInvalidDPoPProof, Description: "The client must send a DPoP proof."}
	errUseNonce = &oauth.Error{Code: oauth.CodeUseDPoPNonce, Description: "Use the nonce of the DPoP-Nonce header in the proof."}
)

// proofOf takes the proof of possession that the request brings; nil: it brings
// none, and the client need not. RFC 9449 section 5.
func (s *Server) proofOf(w http.ResponseWriter, r *http.Request, client *Client) (*dpop.Proof, error) {
	fields := r.Header.Values("DPoP")
	if len(fields) == 0 {
		if client.RequireDPoP {
			return nil, errNoProof
		}
		return nil, nil
	}
	proof, err := s.proofs.Check(fields, dpop.Request{Method: r.Method, URI: s.endpoint(r.URL.Path)})
	if err == nil {
		err = s.proofs.Use(r.Context(), proof)
	}
	switch {
	case errors.Is(err, dpop.ErrUseNonce):
		w.Header().Set("DPoP-Nonce", s.proofs.Nonces.Current())
		return nil, errUseNonce
	case errors.Is(err, dpop.ErrInvalid), errors.Is(err, dpop.ErrReplayed):
		s.audit(r, "proof refused", zap.String("client_id", client.ID), zap.Error(err))
		return nil, errProof
	case err != nil: // nobody can say: never taken for good
		return nil, err
	}
	if proof.NextNonce != "" {
		w.Header().Set("DPoP-Nonce", proof.NextNonce)
	}
	return proof, nil
}

// thumbprint of the key that the request proved to hold; empty: none.
func (req *tokenRequest) thumbprint() string {
	if req.proof == nil {
		return ""
	}
	return req.proof.Thumbprint
}

// refreshKey is what the refresh tokens of a new session are bound to: nothing
// for a client that authenticates with each use of one. RFC 9449 section 5.
func (req *tokenRequest) refreshKey() string {
	if req.client.Confidential() {
		return ""
	}
	return req.thumbprint()
}

// tokenType is what the access token that answers the request is sent as.
func (req *tokenRequest) tokenType() string { return tokenTypeOf(req.thumbprint()) }

// tokenTypeOf a token that is bound to the key with this thumbprint.
func tokenTypeOf(key string) string {
	if key != "" {
		return "DPoP"
	}
	return "Bearer"
}
