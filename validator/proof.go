package validator

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/caddy-scope/caddy-scope/dpop"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// checkProof checks that who sends the request holds the key of the token, in
// all but whether the proof was used before: that costs a write, which only
// requests are worth that would pass. RFC 9449 section 7.
func (r *Resource) checkProof(req *http.Request, shown credentials, token verifiedToken) (*dpop.Proof, *Refusal) {
	switch {
	case !shown.dpop: // whoever stole a bound token would send it as a bearer's
		return nil, boundToken(errors.New("a DPoP-bound token was sent as Bearer"))
	case r.cfg.Proofs == nil:
		return nil, invalidToken(errors.New("DPoP is not supported here"))
	}
	verifier := r.cfg.Proofs()
	fields := req.Header["Dpop"]
	if len(fields) == 0 {
		return nil, invalidProof(errors.New("the DPoP header is missing"))
	}
	proof, err := verifier.Check(fields, dpop.Request{
		Method: req.Method, URI: r.origin + r.cfg.RequestPath(req), AccessToken: shown.token,
	})
	switch {
	case errors.Is(err, dpop.ErrUseNonce):
		return nil, useNonce(verifier.Nonces.Current())
	case err != nil:
		return nil, invalidProof(err)
	case proof.Thumbprint != token.boundKey(): // also where the token is bound to none
		return nil, invalidToken(errors.New("the proof is by another key than the token's"))
	}
	return proof, nil
}

// useProof takes the proof, once among all nodes. RFC 9449 section 11.1.
func (r *Resource) useProof(ctx context.Context, proof *dpop.Proof) *Refusal {
	err := r.cfg.Proofs().Use(ctx, proof)
	switch {
	case errors.Is(err, dpop.ErrReplayed):
		return invalidProof(err)
	case err != nil: // P-04: a store that is down lets nobody in
		return unconfirmed(err)
	}
	return nil
}

func boundToken(cause error) *Refusal {
	refusal := invalidToken(cause)
	refusal.dpop = true
	return refusal
}

func invalidProof(cause error) *Refusal {
	return &Refusal{
		Status: http.StatusUnauthorized, Code: oauth.CodeInvalidDPoPProof, dpop: true,
		Description: "The DPoP proof is missing, invalid or was used before.", Cause: cause,
	}
}

func useNonce(nonce string) *Refusal {
	return &Refusal{
		Status: http.StatusUnauthorized, Code: oauth.CodeUseDPoPNonce, dpop: true, nonce: nonce,
		Description: "Use the nonce of the DPoP-Nonce header in the proof.",
	}
}

// dpopAlgorithms is the parameter algs of the challenge. RFC 9449 section 7.1.
var dpopAlgorithms = strings.Join(dpop.Algorithms, " ")
