//! Activation functions, in the operators and the order that other runtimes fuse.

use super::Writer;
use crate::checkpoint::Activation;
use crate::convert::onnx::Value;

impl Writer {
    pub(super) fn activation(&mut self, name: &str, x: &Value, activation: Activation) -> Value {
        match activation {
            Activation::Relu => self.graph.node("Relu", name, &[x], &[]),
            Activation::Silu => self.sigmoid_gate(name, x, None),
            Activation::QuickGelu => self.sigmoid_gate(name, x, Some(1.702)),
            Activation::Gelu => {
                let factor = self.scalar("inv_sqrt2", std::f32::consts::FRAC_1_SQRT_2);
                let scaled = self.graph.node("Mul", &format!("{name}.scaled"), &[x, &factor], &[]);
                let curve = self.graph.node("Erf", &format!("{name}.erf"), &[&scaled], &[]);
                self.half_of_x_times_one_plus(name, x, &curve)
            }
            Activation::GeluTanh => {
                let (one, cubic) = (self.scalar("one", 1.0), self.scalar("cubic", 0.044_715));
                let factor = self.scalar("sqrt_2_over_pi", (2.0 / std::f32::consts::PI).sqrt());
                let square = self.graph.node("Mul", &format!("{name}.square"), &[x, x], &[]);
                let inner = self.graph.node("Mul", &format!("{name}.square_scaled"), &[&square, &cubic], &[]);
                let inner = self.graph.node("Add", &format!("{name}.inner"), &[&inner, &one], &[]);
                let inner = self.graph.node("Mul", &format!("{name}.inner_x"), &[&inner, x], &[]);
                let inner = self.graph.node("Mul", &format!("{name}.scaled"), &[&inner, &factor], &[]);
                let curve = self.graph.node("Tanh", &format!("{name}.tanh"), &[&inner], &[]);
                self.half_of_x_times_one_plus(name, x, &curve)
            }
        }
    }

    /// `x * (1 + curve) * 0.5`, in the order in which other runtimes recognize GELU.
    fn half_of_x_times_one_plus(&mut self, name: &str, x: &Value, curve: &Value) -> Value {
        let (one, half) = (self.scalar("one", 1.0), self.scalar("half", 0.5));
        let shifted = self.graph.node("Add", &format!("{name}.shifted"), &[curve, &one], &[]);
        let product = self.graph.node("Mul", &format!("{name}.product"), &[x, &shifted], &[]);
        self.graph.node("Mul", name, &[&product, &half], &[])
    }

    /// `x * sigmoid(slope * x)`.
    fn sigmoid_gate(&mut self, name: &str, x: &Value, slope: Option<f32>) -> Value {
        let scaled = slope.map(|slope| {
            let slope = self.scalar("sigmoid_slope", slope);
            self.graph.node("Mul", &format!("{name}.scaled"), &[x, &slope], &[])
        });
        let gate = self.graph.node("Sigmoid", &format!("{name}.sigmoid"), &[scaled.as_ref().unwrap_or(x)], &[]);
        self.graph.node("Mul", name, &[x, &gate], &[])
    }
}
